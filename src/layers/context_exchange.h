// What ranks that have a document's rows among them give each other in attention (post-training 4.5): rows before
// their own, from rank to rank, and the compressed entries, all to all. Backward, gradients go the other way. Nothing
// where one rank has all rows.
//
// Everyone knows from the layout who has what and who needs what. Collective among Ctx::groups.cp.
#pragma once

#include "layers/ctx.h"
#include "layers/token_layout.h"

namespace temper::layers {

// x_JX: the history's rows, then the own ones [history_R[rank] + num_rows, X]. The last of the history's rows, as many
// as needed_R says by rank (at most history_R), are received; others keep their values.
void receive_history(Ctx& ctx, View x_JX, const RowCut& cut, const History& needed_R, const char* what);
// Backward of it: those rows of dx_JX go to the ranks that have them, which add them to theirs: those of the next rank
// first, then those of the one after. from_next_HX: room for the rows of one rank.
void return_history(Ctx& ctx, View dx_JX, View from_next_HX, const RowCut& cut, const History& needed_R,
                    const char* what);

// Entries of all ranks, in tensors with as much room for each rank as the one with the most entries needs.
class EntryExchange {
 public:
  // padded_PX: [ranks * room, X] at least.
  EntryExchange(const RowCut& cut, const std::vector<int64_t>& count_R, View padded_PX);
  // The own entries' place in padded. One rank: the whole of it.
  View own() const;
  // all_CX <- the entries of all ranks, from own().
  void gather(Ctx& ctx, View all_CX, const char* what) const;
  // Backward: own() <- the sum over ranks of the own entries' rows of all_CX.
  void reduce(Ctx& ctx, View all_CX, const char* what) const;

 private:
  View of_rank(int64_t rank) const;

  const RowCut& cut_;
  const std::vector<int64_t>& count_R_;
  int64_t room_ = 0;
  View padded_PX_;
};

}  // namespace temper::layers
