// The weights of a model that many ranks hold together, read by one of them, range by range.
//
//   WholeWeights weights(ctx, model.parameters());           // all ranks: they tell the first one what they have
//   if (!weights.is_first()) return weights.serve();         // answers until the first one has done
//   ... weights.read(*weights.parameters()[i], begin, end, to) ...
//   weights.end("");
//
// No rank holds more of the others than what it reads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::checkpoint {

class WholeWeights {
 public:
  // ranks: ctx.groups.world. Collective.
  WholeWeights(layers::Ctx& ctx, std::span<layers::Parameter* const> parameters);

  bool is_first() const { return comm::group_rank(ranks_) == 0; }

  // On the first rank: the parameters of the whole model in their whole shapes, in the order of one rank's model. Where
  // there are many ranks they have no memory.
  std::span<layers::Parameter* const> parameters() const { return parameters_; }
  // The dtype of its weight of record.
  static DType record_dtype(const layers::Parameter& p);

  // Copies elements [begin, end) of the weight of record of one of parameters() to the host.
  void read(const layers::Parameter& p, int64_t begin, int64_t end, std::byte* to);
  // To be called now and then between two reads: the others do not wait for ever.
  void keep_waiting();
  // Nothing more will be read. problem: what went wrong; empty: nothing.
  void end(const std::string& problem);

  // On the other ranks: gives the first one what it asks for. Throws kPeer where it ended with a problem.
  void serve();

 private:
  // Elements of a parameter that a rank has.
  struct Held {
    int64_t rank, number, at, count;  // number: of the parameter on that rank; at: first element of its record
  };
  std::string describe_mine() const;
  void note(int64_t rank, const std::string& description);
  void fetch_mine(const layers::Parameter& p, int64_t at, int64_t count, std::byte* to) const;

  layers::Ctx& ctx_;
  comm::Comm* ranks_;
  std::span<layers::Parameter* const> mine_;
  std::vector<std::unique_ptr<layers::Parameter>> made_;  // of many ranks
  std::vector<layers::Parameter*> parameters_;
  std::unordered_map<std::string, std::map<int64_t, Held>> held_;  // by name, then by first element
  double told_at_ = 0;
};

}  // namespace temper::checkpoint
