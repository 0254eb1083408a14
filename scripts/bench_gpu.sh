#!/usr/bin/env bash
# One training step of TRL's trainer and of ours on a GPU: Qwen3 shapes with random weights, bf16, completions up to
# 16 384 tokens, activations recomputed in both. Needs one CUDA GPU with bf16 and `pip install -c constraints.txt -e .`
# with a CUDA build of torch; nothing is downloaded. Weights, gradients and AdamW's state are in bf16, 8 bytes a weight:
# qwen3-0.6b takes a GPU of 24 GB, 1.7b of 40 GB, 8b (66 GB before the first activation) of 141 GB.
#   scripts/bench_gpu.sh                          # 0.6B and 1.7B
#   scripts/bench_gpu.sh qwen3-8b --runs 3        # one shape; options go to scripts/bench_train_step.py
# Exit status: 0; 1 if a run failed; 2 without a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[[ -x $python ]] || python=python3
shapes=(qwen3-0.6b qwen3-1.7b)
if [[ ${1:-} == qwen3-* ]]; then shapes=("$1"); shift; fi
status=0
for shape in "${shapes[@]}"; do
  "$python" -m scripts.bench_train_step --device cuda --dtype bf16 --shape "$shape" --checkpointing --warmup-steps 1 \
    --median 4096 --cut 16384 --trl-rows 1,2,4,8 --ours-rows 1,2,4 "$@" || status=$?
  if [[ $status -eq 2 ]]; then exit 2; fi
done
exit "$status"
