#!/usr/bin/env bash
# Draws the learning curves of a metrics.jsonl whose lines carry the stage they belong to.
#
#   tools/plot_metrics.sh METRICS.jsonl OUT.png
set -euo pipefail
if [ $# != 2 ]; then echo "usage: tools/plot_metrics.sh METRICS.jsonl OUT.png" >&2; exit 2; fi
metrics=$1 out=$2
curves=$(mktemp -d)
trap 'rm -rf "$curves"' EXIT

for stage in pretrain sft; do
  # Columns: millions of tokens, loss, learning rate in thousandths.
  jq -r --arg stage $stage 'select(.stage == $stage and .loss)
    | [.num_tokens / 1e6, .loss, 1000 * .learning_rate] | @tsv' "$metrics" > "$curves/$stage"
  # Held-out losses stand after the line of their step: millions of tokens, loss.
  jq -r --arg stage $stage 'select(.stage == $stage)
    | [.num_tokens // "held-out", .eval_loss // 0] | @tsv' "$metrics" |
    awk '$1 == "held-out" { print tokens / 1e6, $2; next } { tokens = $1 }' > "$curves/$stage-heldout"
done
heldout=
if [ -s "$curves/sft-heldout" ]; then
  heldout=", \"$curves/sft-heldout\" using 1:2 with points pt 7 ps 1.2 lc rgb '#222222' title 'held-out loss'"
fi

gnuplot <<GNUPLOT
set terminal pngcairo size 1200,480 font "sans,11"
set output "$out"
set multiplot layout 1,2
set grid lc rgb "#dddddd"
set xlabel "millions of tokens"
set ylabel "loss (nats per trained token)"
set y2label "learning rate / 10^{-3}"
set ytics nomirror
set y2tics
set key top right
set logscale y
set format y "%g"
set y2range [0:]
set title "1  continued pre-training: the King James Bible"
plot "$curves/pretrain" using 1:3 axes x1y2 with lines dt 2 lw 1.5 lc rgb "#999999" title "learning rate", \
     "$curves/pretrain" using 1:2 with lines lw 1 lc rgb "#1f5fa8" title "loss"
set title "2  supervised fine-tuning: how words are pronounced"
plot "$curves/sft" using 1:3 axes x1y2 with lines dt 2 lw 1.5 lc rgb "#999999" title "learning rate", \
     "$curves/sft" using 1:2 with lines lw 1 lc rgb "#b0481f" title "loss"$heldout
GNUPLOT
