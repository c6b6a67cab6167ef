#include "verify/weights.h"

#include "checkpoint/convert.h"
#include "checkpoint/model_dir.h"

namespace temper::verify {
namespace {

using checkpoint::MtpKind;

model::Model shapes_of(model::Config config, MtpKind mtp_kind) {
  model::ModelOptions options;
  options.max_tokens = 1;
  options.train = false;
  options.mtp = config.num_nextn_predict_layers > 0 && mtp_kind == MtpKind::kV4;
  return {std::move(config), options};
}

}  // namespace

Weights::Weights(const std::filesystem::path& dir)
    : source_(dir),
      shapes_(shapes_of(checkpoint::load_config(dir), source_.mtp_kind())),
      fit_(source_.fit(shapes_.parameters(), true)) {}

const layers::Parameter& Weights::parameter(const std::string& name) const {
  for (const layers::Parameter* parameter : parameters())
    if (parameter->name == name) return *parameter;
  CHECK(false, name);
}

void Weights::load(layers::Ctx& ctx, const layers::ParameterList& parameters) const {
  source_.load(ctx, source_.fit(parameters, false));
}

void Weights::load_rows(layers::Ctx& ctx, const View& to_RC, const std::string& parameter, int64_t begin,
                        int64_t end) const {
  const auto tensors = source_.tensors_of(parameter);
  CHECK(tensors.size() == 1 && to_RC.dim(0) == end - begin, parameter, tensors.size(), to_RC.to_string(), begin, end);
  std::vector<std::byte> rows(static_cast<size_t>(to_RC.num_bytes()));
  checkpoint::decode_rows(tensors[0]->encoded, begin, end, rows.data(), checkpoint::file_dtype(to_RC.dtype));
  ctx.device.copy_to_device(ctx.stream, to_RC, rows.data());
  release(tensors[0]->encoded);
}

void release(const checkpoint::EncodedTensor& tensor) {
  release_pages(*tensor.weight);
  if (tensor.scale) release_pages(*tensor.scale);
}

}  // namespace temper::verify
