"""Typed schema, composition, unknown-key check, batch algebra."""
