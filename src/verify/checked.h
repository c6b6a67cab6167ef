// A backend that repeats every op on the scalar reference in float64, on the same operands, and compares.
//
// It is itself an op table and a device table, so a layer runs on it unchanged: what it is given is what the fast
// backend makes, and one op's error is not another's. The reference reads the operands where they are: the fast backend
// must work in host memory.
#pragma once

#include <string>
#include <vector>

#include "backend/registry.h"
#include "backend/wrapped.h"
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

struct CheckingHook : backend::WrappedStream {
  template <backend::OpId kId, class... Args>
  void call(const Args&... args);
  const backend::Backend* reference;
  layers::ParameterList parameters;
  std::vector<OpError> errors;
  int64_t num_ties = 0;
};

class CheckedBackend : public backend::WrappedBackend<CheckingHook> {
 public:
  explicit CheckedBackend(const backend::Backend& fast);  // must outlive this

  // Whose memory tells which weight an op read.
  void set_parameters(const layers::ParameterList& parameters) { hook_.parameters = parameters; }
  // Ops in the order of their first call.
  const std::vector<OpError>& errors() const { return hook_.errors; }
  // Rows in which fast and reference chose otherwise because scores were closer than rounding.
  int64_t num_ties() const { return hook_.num_ties; }
  void reset() { hook_.errors.clear(), hook_.num_ties = 0; }
};

}  // namespace temper::verify
