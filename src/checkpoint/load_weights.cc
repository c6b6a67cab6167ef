#include "base/error.h"
#include "base/path_inside.h"
#include "checkpoint/model_dir.h"

namespace temper::checkpoint {

model::Config load_config(const std::filesystem::path& dir) {
  if (!std::filesystem::is_directory(dir))
    fail(ErrorCode::kNotFound, "{}: no such directory; expected a Hugging Face model directory", dir.string());
  const auto path = path_inside(dir, "config.json");
  return model::parse_config(read_file(path), path.string());
}

LoadReport load_weights(const std::filesystem::path& dir, layers::Ctx& ctx,
                        std::span<layers::Parameter* const> parameters, const LoadOptions& options) {
  const WeightSource source(dir);
  const bool is_whole_model = comm::group_size(ctx.groups.pp) == 1;
  return source.load(ctx, source.fit(parameters, is_whole_model, options));
}

}  // namespace temper::checkpoint
