#!/usr/bin/env bash
# Draws the learning curves of a metrics.jsonl whose lines carry the stage they belong to.
#
#   tools/plot_metrics.sh METRICS.jsonl OUT.png
set -euo pipefail
if [ $# != 2 ]; then echo "usage: tools/plot_metrics.sh METRICS.jsonl OUT.png" >&2; exit 2; fi
metrics=$1 out=$2
curves=$(mktemp -d)
trap 'rm -rf "$curves"' EXIT

# Columns: thousands of tokens, loss, learning rate.
column() { jq -r --arg stage "$1" "select(.stage == \$stage) | $2 | @tsv" "$metrics"; }
for stage in pretrain sft; do
  column $stage 'select(.loss) | [.num_tokens / 1000, .loss, .learning_rate]' > "$curves/$stage"
done

gnuplot <<GNUPLOT
set terminal pngcairo size 1200,480 font "sans,11"
set output "$out"
set multiplot layout 1,2
set grid lc rgb "#dddddd"
set xlabel "thousands of tokens"
set ylabel "loss (nats per trained token)"
set y2label "learning rate"
set y2tics format "%.0e"
set ytics nomirror
set key top right
set yrange [0:]
set y2range [0:]
set title "1  continued pre-training: the King James Bible"
plot "$curves/pretrain" using 1:2 with lines lw 2 lc rgb "#1f5fa8" title "loss", \
     "$curves/pretrain" using 1:3 axes x1y2 with lines dt 2 lc rgb "#999999" title "learning rate"
set title "2  supervised fine-tuning: how words are pronounced"
plot "$curves/sft" using 1:2 with lines lw 2 lc rgb "#b0481f" title "loss", \
     "$curves/sft" using 1:3 axes x1y2 with lines dt 2 lc rgb "#999999" title "learning rate"
GNUPLOT
