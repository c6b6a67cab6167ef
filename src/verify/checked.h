// A backend that repeats every op on the scalar reference in float64, on the same operands, and compares.
//
// It is itself an op table and a device table, so a layer runs on it unchanged: what it is given is what the fast
// backend makes, and one op's error is not another's. The reference reads the operands where they are: the fast backend
// must work in host memory.
#pragma once

#include <string>
#include <vector>

#include "backend/registry.h"
#include "layers/parameter.h"
#include "verify/difference.h"

namespace temper::verify {

// The worst call of an op since reset().
struct OpError {
  backend::OpId op = backend::OpId::kCount;
  int64_t num_calls = 0;
  double error = 0;    // worst_element() of the worst output of the worst call; infinite where a choice differs
  double allowed = 0;  // of that output
  std::string output;  // its name in ops.def
  std::string weight;  // the parameter that the call read; may be empty
  int64_t row = -1;    // of the output: usually a token
  std::string cause;   // a known mistake that makes exactly this result of these operands; may be empty
};

class CheckedBackend {
 public:
  // fast must outlive this. parameters: whose memory tells which weight an op read; set_parameters() changes them.
  explicit CheckedBackend(const backend::Backend& fast);
  CheckedBackend(const CheckedBackend&) = delete;
  CheckedBackend& operator=(const CheckedBackend&) = delete;
  ~CheckedBackend();

  const backend::Backend& backend() const { return backend_; }
  // The one stream that the wrapped ops accept.
  backend::Stream* stream() { return reinterpret_cast<backend::Stream*>(&state_); }

  void set_parameters(const layers::ParameterList& parameters) { state_.parameters = parameters; }
  // Ops in the order of their first call.
  const std::vector<OpError>& errors() const { return state_.errors; }
  // Rows in which fast and reference chose otherwise because scores were closer than rounding.
  int64_t num_ties() const { return state_.num_ties; }
  void reset() { state_.errors.clear(), state_.num_ties = 0; }

  // What stands behind a wrapped Stream*.
  struct State {
    const backend::Backend* fast;
    const backend::Backend* reference;
    backend::Stream* stream;
    layers::ParameterList parameters;
    std::vector<OpError> errors;
    int64_t num_ties = 0;
  };

 private:
  State state_;
  backend::Backend backend_;
};

}  // namespace temper::verify
