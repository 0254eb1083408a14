"""Which tokens carry gradient?"""
