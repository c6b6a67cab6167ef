// Inside of Model: its layers and the tensors of one micro-batch. Private to model/ and to the decoder.
#pragma once

#include <memory>
#include <vector>

#include "layers/lm_head.h"
#include "model/block.h"
#include "model/model.h"

namespace temper::model {

struct Model::Impl {
  Impl(const Config& config, const ModelOptions& options);

  layers::Dtypes dtypes;
  KeepPlan keep;
  layers::Parameter embedding;
  std::vector<std::unique_ptr<Block>> blocks;
  layers::HyperConnection head_hyper;
  layers::RmsNorm norm;
  layers::LmHead lm_head;
  layers::RotaryTable main_rotary, compress_rotary;

  layers::DeviceLayout layout;
  std::vector<int32_t> targets;  // of the current micro-batch
  bool given = false;            // its choices came from outside
  layers::ChoiceSource replay() const { return given ? layers::ChoiceSource::kGiven : layers::ChoiceSource::kReplay; }
  std::vector<View> stream_buffers;  // act [T, M, D], by KeepPlan
  layers::HyperConnection::Saved head_saved;
  View v_TD, v_rstd_T, y_TD;  // after the collapse, and normed: act, acc, act
  View dx_TMD, dv_TD;         // acc

  const layers::RotaryTable& rotary(const Config& config, int64_t layer) const {
    return config.compress_rate(layer) > 0 ? compress_rotary : main_rotary;
  }
  View streams(int64_t layer) const { return stream_buffers[keep.stream_buffer[layer]].first(layout.num_tokens()); }
  // Collapse, final norm: fills y_TD from the streams after the last layer.
  void collapse(layers::Ctx& ctx, View x_TMD) const;
  // Runs a block's forward again, with the choices of the first time so that it takes the same route.
  void rebuild(layers::Ctx& ctx, const Config& config, int64_t layer) const;
};

}  // namespace temper::model
