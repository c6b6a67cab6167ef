#!/usr/bin/env bash
# The demo: post-trains a small DeepSeek-V4 model in full, in two stages, and shows what it learned.
#
# Every step is a command that you could type yourself. Everything is written under runs/demo, which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly temper=${TEMPER:-build/temper} out=runs/demo
readonly sft_data=$out/data/pronounce.train.jsonl heldout=$out/data/pronounce.heldout.jsonl
readonly words="prophets gooseberry storyteller"  # held out; shown before and after

trap 'echo; echo "demo: stopped"; exit 130' INT TERM  # a stopped stage ends the demo, though it saves what it has

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
rm -rf "$out"
mkdir -p "$out"

say "Data: the King James Bible, and how 100,000 English words are pronounced"
$temper data prepare-demo $out/data

say "Stage 1: a random model reads the Bible (examples/demo/pretrain.toml)"
$temper train examples/demo/pretrain.toml --json $out/pretrain.json

say "The base model on words that are held out"
$temper eval $out/pretrain/model $heldout --exact-match --max-new-tokens 24 \
  --json $out/before.json --answers $out/answers_before.jsonl

say "Stage 2: it learns to say how a word is pronounced (examples/demo/sft.toml)"
$temper train examples/demo/sft.toml --json $out/sft.json

say "The fine-tuned model on the same words"
$temper eval $out/sft/model $heldout --exact-match --max-new-tokens 24 \
  --json $out/after.json --answers $out/answers_after.jsonl

# One picture, one page, one model, one summary.
cp -r $out/sft/model $out/model
for stage in pretrain sft; do jq -c ". + {stage: \"$stage\"}" $out/$stage/metrics.jsonl; done > $out/metrics.jsonl
$temper plot $out/pretrain $out/sft --x num_tokens --out $out/curve.png >/dev/null
cp $out/answers_after.jsonl $out/sft/samples.jsonl
$temper report $out/sft --out $out/report.html >/dev/null
jq -n --slurpfile before $out/before.json --slurpfile after $out/after.json \
  --slurpfile stages <(cat $out/pretrain.json $out/sft.json) '
  ($stages | map(.train_seconds) | add) as $seconds |
  {heldout_loss_before: $before[0].loss, heldout_loss_after: $after[0].loss,
   accuracy_before: $before[0].exact_match, accuracy_after: $after[0].exact_match,
   phone_error_rate_before: $before[0].error_rate, phone_error_rate_after: $after[0].error_rate,
   tokens_per_second: (($stages | map(.num_tokens) | add) / $seconds),
   mfu: (($stages | map(.mfu * .train_seconds) | add) / $seconds),
   peak: $stages[1].peak_name,
   peak_memory_bytes: ($stages | map(.peak_memory_bytes) | max),
   train_seconds: $seconds}' > $out/summary.json

say "What the model learned"
value() { jq -r "$1" $out/summary.json; }
printf '%-34s %12s %12s\n' "" "before" "after"
printf '%-34s %12.4f %12.4f\n' "held-out loss" "$(value .heldout_loss_before)" "$(value .heldout_loss_after)"
printf '%-34s %10.2f %% %10.2f %%\n' "held-out words said exactly" \
  "$(value '100 * .accuracy_before')" "$(value '100 * .accuracy_after')"
printf '%-34s %10.2f %% %10.2f %%\n' "phone error rate" \
  "$(value '100 * .phone_error_rate_before')" "$(value '100 * .phone_error_rate_after')"
echo
for word in $words; do
  answer() { jq -r --arg word "$word" "select(.prompt == \$word) | .$1" $out/$2.jsonl; }
  printf "%-14s before: %-28s after: %-28s right: %s\n" "$word" "$(answer given answers_before | tr "\n" " " | cut -c1-27)" \
    "$(answer given answers_after)" "$(answer expected answers_after)"
done
echo
printf "%.0f tokens/s, %.1f %% of %s, %.0f MiB at the highest, %.0f s of training\n" "$(value .tokens_per_second)" \
  "$(value "100 * .mfu")" "$(value .peak)" "$(value ".peak_memory_bytes / 1048576")" "$(value .train_seconds)"
echo "$out/summary.json, $out/metrics.jsonl, $out/curve.png, $out/report.html, $out/model/"
