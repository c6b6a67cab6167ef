// What every engine must do, whatever its ranks are: called by all ranks of a world at once. They throw Error where an
// answer is wrong.
#pragma once

#include "comm/comm.h"

namespace temper::comm::testing {

// Sums, maxima and reduce-scatters in every dtype against the tree of comm.h written as its definition, bit by bit.
void check_reductions(Comm& group);
// Gathers, exchanges of uneven rows, barriers.
void check_movements(Comm& group);
// Messages in patterns that need buffers: everyone sends before anyone receives, in rings and many at a time.
void check_messages(Comm& group);
// Groups by row, by column and of one, and groups of groups.
void check_splits(Comm& world);
void check_all(Comm& world);

// A stream for communication.
class CommStream {
 public:
  CommStream();
  CommStream(const CommStream&) = delete;
  CommStream& operator=(const CommStream&) = delete;
  ~CommStream();
  backend::Stream* get() const { return stream_; }

 private:
  backend::Stream* const stream_;
};

// The same answers on a stream for communication, one call after the other and many at once beside those of the
// computing thread.
void check_beside(Comm& world);

}  // namespace temper::comm::testing
