// The way of a row from its token to its expert, and of what the expert made of it back (post-training 4.3).
//
// Experts stand in the order of their numbers, or in another one (place): what becomes of a row does not depend on it,
// nor does the order in which a token's rows are added.
//
// One rank: the (token, slot) pairs are sorted by expert, every expert padded to a multiple of kRowAlignment rows, and
// rows are gathered straight from the tokens. Nothing else happens.
//
// Several ranks: the pairs P are sorted by expert, and so by owner. All ranks learn all counts (all_gather). In each
// round (dispatch_rounds.h) rows are gathered into a send buffer, exchanged (all_to_all_v), and gathered to their
// experts; results go the same way back, into one place for all rounds, so that a token's sum over its K slots has the
// order that it has on one rank. The host must know the counts: one small copy per pass. Every way has a beginning and
// an end; what is done in between runs while the rows travel, where there is a stream for that (Ctx::beside).
#pragma once

#include <span>
#include <string>

#include "layers/ctx.h"
#include "layers/dispatch_rounds.h"
#include "layers/parameter.h"

namespace temper::layers {

struct DispatchDims {
  int64_t D, E, K;  // hidden, experts of all ranks, experts per token
  ExpertPart part;
};

// The rows that the experts of this rank take at once.
struct ExpertRows {
  int64_t count = 0;                        // with padding
  View offset_e1;                           // i32: first row of each local expert
  View block_offset_B1;                     // i32, exact sums among several ranks: of each block
  const DispatchRound* exchange = nullptr;  // several ranks
  View token_P, slot_P;                     // i32: token, and token * K + slot, of each row of the plan
};

class Dispatch {
  // Buffers among several ranks: of this rank's pairs by expert, and of the experts' rows in the order of their coming.
  struct Lane {
    View send_PX, returned_PX, recv_NX;
  };

 public:
  // i32. Rows P of the plan: on one rank the experts' rows, with padding; among several this rank's pairs, without.
  struct Saved {
    View offset_E1, row_token_P, row_slot_P, slot_row_TK;
    View count_SE;  // several ranks: what each rank sends to each expert
  };
  // Of this rank, or of several; empty on one rank, whose host does not know the counts.
  using Rounds = std::vector<DispatchRound>;

  Dispatch(DispatchDims dims, Dtypes dtypes);

  bool is_exchange() const { return dims_.part.size > 1; }
  // Most rows of this rank's experts at once.
  int64_t max_rows(int64_t max_tokens) const;

  void declare_saved(Book& book, Saved& saved, const std::string& name, int64_t max_tokens) const;
  void declare_scratch(Book& book, const std::string& name, int64_t max_tokens);
  Saved first(const Saved& saved, int64_t T) const;

  // Among several ranks: expert i is from now on the position_E[i]-th of all ranks' experts, whose weights must have
  // been moved there. At the start every expert is at its own number.
  void place(Ctx& ctx, std::span<const int32_t> position_E);

  // Sorts the pairs by expert and, among several ranks, tells everybody how many go where.
  void plan(Ctx& ctx, const Saved& saved, View expert_TK) const;
  // The rounds of a plan. A backend that moves no data tells of no rows: then they are taken to be spread evenly.
  Rounds rounds(Ctx& ctx, const Saved& saved) const;
  static int64_t num_rounds(const Rounds& rounds) { return rounds.empty() ? 1 : static_cast<int64_t>(rounds.size()); }
  // Makes the way of round i ready, until the next call. rounds must stay.
  ExpertRows begin_round(Ctx& ctx, const Saved& saved, const Rounds& rounds, int64_t i) const;

  // Rows on their way in one direction. To be ended once, before others of hidden, or of weights, begin theirs.
  struct Transfer {
    const Lane* lane = nullptr;
    View from, index_P;              // from: what is sent; index_P, to experts: which of its rows
    backend::Event* mark = nullptr;  // beside computation: when they have come
  };
  // Rows of hidden (act) of the tokens, and numbers (acc) of the slots, to the experts. what names the exchange.
  Transfer hidden_to_experts(Ctx& ctx, View from_TD, const ExpertRows& rows, const char* what) const;
  Transfer weights_to_experts(Ctx& ctx, View from_TK, const ExpertRows& rows, const char* what) const;
  void arrive(Ctx& ctx, View to_RX, const Transfer& transfer, const ExpertRows& rows) const;
  // The way back. from may be written over when it has been ended. After the last round the result of that holds the
  // row of every pair, at row slot_row_TK[t, k].
  Transfer hidden_from_experts(Ctx& ctx, View from_RD, const ExpertRows& rows, const char* what) const;
  Transfer weights_from_experts(Ctx& ctx, View from_R1, const ExpertRows& rows, const char* what) const;
  View arrive_back(Ctx& ctx, const Transfer& transfer, const ExpertRows& rows) const;

 private:
  int64_t num_local_experts() const { return dims_.E / dims_.part.size; }
  Transfer send(Ctx& ctx, View from_TX, View index_P, const Lane& lane, const ExpertRows& rows, const char* what) const;
  Transfer send_back(Ctx& ctx, View from_RX, const Lane& lane, const ExpertRows& rows, const char* what) const;

  DispatchDims dims_;
  Dtypes dtypes_;
  struct Scratch {
    Lane hidden, weights;
    View offset_e1, block_offset_B1, from_R, row_N;  // i32: the current round's
    View position_TK;                                // i32
  } scratch_;
  View position_E1_;  // i64
  bool is_moved_ = false;
};

}  // namespace temper::layers
