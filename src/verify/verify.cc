#include "verify/verify.h"

#include <fmt/format.h>

#include "base/error.h"
#include "verify/against_dir.h"
#include "verify/against_file.h"
#include "verify/memory.h"
#include "verify/self.h"
#include "verify/weights.h"

namespace temper::verify {
namespace {

// The most tokens that fit into the budget; 0 if not one does.
template <class Plan>
int64_t tokens_that_fit(int64_t budget_bytes, int64_t num_tokens, const Plan& plan) {
  int64_t fits = 0, too_many = num_tokens;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (plan(middle).peak_bytes() <= budget_bytes ? fits : too_many) = middle;
  }
  return fits;
}

// One verification: what its modes share.
class Run {
 public:
  Run(const Options& options, const Print& print) : options_(options), print_(print), weights_(options.dir) {
    report_.num_main_layers = weights_.config().num_hidden_layers;
    report_.json["model"] = options.dir.string();
  }

  void structure() {
    print_(fmt::format("structure of {}\n", options_.dir.string()));
    report_.json["structure"] = check_structure(weights_, report_.findings, print_);
  }

  void say_what_is_left_out() {
    if (weights_.config().num_nextn_predict_layers == 0 || weights_.has_mtp()) return;
    report_.findings.note(kNoLayer, "mtp",
                          weights_.mtp_kind() == checkpoint::MtpKind::kNone
                              ? "config.json speaks of an MTP block, the files have none"
                              : "the files have tensors under mtp. that are not V4's block; they were left out");
  }

  void self() {
    const layers::MicroBatch tokens = read_tokens(options_.tokens, weights_.config());
    print_("\nfast path against float64, on equal streams\n");
    announce(tokens, [&](int64_t T) { return self_extra_bytes(weights_, T); });
    const SelfOptions self{options_.precision, options_.max_error, &fast()};
    report_.json["self"] = check_self(weights_, tokens, self, report_.findings, print_);
  }

  void against_dir() {
    const Weights theirs(options_.against);
    theirs.refuse_misfits();
    refuse_other_shapes(weights_, theirs);
    const layers::MicroBatch tokens = read_tokens(options_.tokens, weights_.config());
    print_(fmt::format("\nagainst {}\n", options_.against.string()));
    announce(tokens, [&](int64_t T) { return against_extra_bytes(theirs, options_.precision, T); });
    const AgainstOptions against{options_.precision, options_.max_error, options_.logits};
    report_.json["against"] = check_against_dir(weights_, theirs, tokens, fast(), against, report_.findings, print_);
  }

  void against_file() {
    const LogitFile file(options_.against, weights_.config());
    print_(fmt::format("\nagainst {}\n", options_.against.string()));
    announce(file.tokens(), [&](int64_t T) { return StreamedModel::plan(weights_, options_.precision, T).head_bytes; });
    report_.json["against"] =
        check_against_file(weights_, file, fast(), options_.precision, options_.logits, report_.findings, print_);
  }

  Report finish() {
    print_(fmt::format("\nmemory at its peak: {}\n", format_bytes(peak_.bytes())));
    report_.json["peak_memory_bytes"] = peak_.bytes();
    report_.json["findings"] = report_.findings.to_json();
    report_.json["passed"] = report_.findings.num_failed() == 0;
    return report_;
  }

  bool failed() const { return report_.findings.num_failed() > 0; }
  const Weights& weights() const { return weights_; }

 private:
  const backend::Backend& fast() const { return options_.fast ? *options_.fast : backend::cpu(); }

  // Prints the plan; refuses one that exceeds the limit.
  template <class ExtraBytes>
  void announce(const layers::MicroBatch& tokens, const ExtraBytes& extra_bytes) const {
    const auto T = static_cast<int64_t>(tokens.tokens.size()), held = private_bytes();
    const auto plan = [&](int64_t num_tokens) {
      MemoryPlan out = StreamedModel::plan(weights_, options_.precision, num_tokens);
      out.extra_bytes = extra_bytes(num_tokens);
      return out;
    };
    const MemoryPlan needed = plan(T);
    const int64_t peak = held + needed.peak_bytes();
    print_(
        fmt::format("memory for {} tokens: {} = {} held + {} largest layer (or head: {}) + {} streams + {} to compare "
                    "+ {} buffers\n",
                    T, format_bytes(peak), format_bytes(held), format_bytes(needed.largest_layer_bytes),
                    format_bytes(needed.head_bytes), format_bytes(needed.shared_bytes),
                    format_bytes(needed.extra_bytes), format_bytes(MemoryPlan::kBufferBytes)));
    if (options_.memory_bytes == 0 || peak <= options_.memory_bytes) return;
    const int64_t fits = tokens_that_fit(options_.memory_bytes - held, T, plan);
    fail(ErrorCode::kBudget, "{} tokens need {} of memory, --memory allows {}; {}", T, format_bytes(peak),
         format_bytes(options_.memory_bytes),
         fits > 0 ? fmt::format("{} tokens would fit", fits)
                  : fmt::format("one token needs {}: the largest layer alone takes {}",
                                format_bytes(held + plan(1).peak_bytes()), format_bytes(needed.largest_layer_bytes)));
  }

  const Options& options_;
  const Print& print_;
  PeakMemory peak_;
  Weights weights_;
  Report report_;
};

}  // namespace

Report run(const Options& options, const Print& print) {
  Run run(options, print);
  if (options.structure) run.structure();
  if (run.failed()) {
    print("\nthe model is not run, because its structure is at fault\n");
    return run.finish();
  }
  if (options.self || !options.against.empty()) run.weights().refuse_misfits();
  run.say_what_is_left_out();
  if (options.self) run.self();
  if (std::filesystem::is_directory(options.against)) {
    run.against_dir();
  } else if (!options.against.empty()) {
    run.against_file();
  }
  return run.finish();
}

}  // namespace temper::verify
