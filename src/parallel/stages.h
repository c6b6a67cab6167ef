// Cutting a model's layers into the parts of a pipeline (schedule.h), evenly by cost. A layer may be cut between its
// attention and its experts: what goes from one to the other is what goes from layer to layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/model_options.h"

namespace temper::parallel {

// In any unit.
struct SiteCosts {
  std::vector<double> site_S;  // of the main layers' sites (model::SiteRange)
  double first = 0, last = 0;  // of what the first and the last part have besides
  bool rebuilds = false;       // backward runs what it has of every layer forward again, but for a part's last one
};

// Forward FLOPs per token in documents of that many tokens (post-training 4.9): products and attention, the routed
// experts that a token meets, the indexer where entries are chosen. The embedding costs nothing; the last part has the
// collapse, the head and, with mtp, the prediction block with a head of its own pass. Backward is twice this for every
// site, so that these numbers cut it evenly too.
SiteCosts forward_flops(const model::Config& config, int64_t document_tokens, bool mtp);

// Forward FLOPs of a document of so many tokens in the whole model, alike on all ranks: what data is dealt by.
double document_flops(const model::Config& config, int64_t num_tokens);

using model::SiteRange;

// The sites of num_stages * num_chunks parts, by part. Every part has at least one; the costliest part, which sets the
// pace with all its passes, is as cheap as can be, and among such cuts the sum of the parts' squared costs is least;
// where that is equal, fewer layers are cut, then earlier parts are shorter, since earlier stages keep more
// micro-batches alive. Throws kInvalidArgument where there are more parts than sites.
std::vector<SiteRange> split_sites(const SiteCosts& costs, int64_t num_stages, int64_t num_chunks);

// "the experts of layer 2, layers 3 to 5, the attention of layer 6"
std::string describe(const SiteRange& sites);

}  // namespace temper::parallel
