// Where the elements that a rank has of a parameter are in the whole tensor.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/parameter.h"

namespace temper::parallel {

// The weight of record that a rank has: of a shared parameter the elements that it owns, else its part.
inline const View& record_of(const layers::Parameter& p) { return p.master.defined() ? p.master : p.value; }

// Calls body(begin, at, count) for every stretch of what a rank has of a parameter, of its master or its moments:
// elements [at, at + count) of that are elements [begin, begin + count) of the whole tensor, in memory order.
template <class Body>
void for_each_stretch(const layers::Parameter& p, const Body& body) {
  int64_t stretch = std::max<int64_t>(p.shape.size(), 1);
  if (p.part.whole.rank() > 0)
    for (int d = 0; d < p.part.dim; ++d) stretch /= p.shape[d];
  const int64_t first = p.is_shared() ? p.owned_begin() : 0;
  const int64_t last = p.is_shared() ? first + p.num_owned() : p.shape.size();
  for (int64_t at = first; at < last;) {
    const int64_t end = std::min(last, (at / stretch + 1) * stretch);
    body(p.whole_index(at), at - first, end - at);
    at = end;
  }
}

}  // namespace temper::parallel
