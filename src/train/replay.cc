#include "train/replay.h"

#include "base/error.h"
#include "train/configuration.h"

namespace temper::train {

ReplayResult replay(const std::filesystem::path& bundle_dir) {
  const Bundle bundle = read_bundle(bundle_dir);
  RunConfig config = config_of(bundle.configuration, (bundle_dir / "run.json").string());
  config.layout = {};  // one rank computes what many did: their steps have the same data, their states no layout
  config.output.dir = std::filesystem::absolute(bundle_dir / "..").lexically_normal().string();
  Trainer trainer(std::move(config), Start::kReplay, system_files(), bundle.state ? bundle.state->step : 0);
  if (bundle.state && trainer.steps_done() != bundle.state->step)
    fail(ErrorCode::kNotFound, "{} starts from the run state of step {}, which is not whole any more",
         bundle_dir.string(), bundle.state->step);
  return trainer.replay(bundle);
}

}  // namespace temper::train
