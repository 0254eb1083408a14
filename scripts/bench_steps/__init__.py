"""The parts of `scripts.bench_train_step`: shapes, planned rollouts, one measured step in a process, tables."""
