#include "objective/objective.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "objective/sft.h"

namespace temper::objective {

std::unique_ptr<Objective> make_objective(std::string_view name, const ObjectiveOptions& options) {
  constexpr std::array<std::string_view, 4> kLater = {"dpo", "grpo", "distill", "opd"};
  if (name == "sft") return std::make_unique<Sft>(options);
  if (name == "pretrain") {
    // The loss of continued pre-training is that of SFT with every token a target (post-training 2.3).
    if (options.dft || options.reduction != ObjectiveOptions::Reduction::kToken) {
      fail(ErrorCode::kInvalidArgument,
           "objective \"pretrain\" takes neither dft nor loss_reduction = \"sample\"; use objective = \"sft\"");
    }
    return std::make_unique<Sft>(options);
  }
  if (std::find(kLater.begin(), kLater.end(), name) != kLater.end()) {
    fail(ErrorCode::kUnsupported, "objective \"{}\" is not in this build; it has pretrain and sft", name);
  }
  fail(ErrorCode::kInvalidArgument, "objective \"{}\" is not known; use pretrain or sft", name);
}

}  // namespace temper::objective
