// How far two models' predictions are from each other, by token, from logits that are never whole.
//
//   KL_t = sum_v p_tv (log p_tv - log q_tv),  p = softmax(ours), q = softmax(theirs);  cosine and top-1 of the logits
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/view.h"
#include "verify/findings.h"

namespace temper::verify {

struct LogitGates {
  double max_kl = 1e-2;       // mean over tokens, in nats
  double min_cosine = 0.999;  // mean over tokens
};

class LogitComparison {
 public:
  explicit LogitComparison(int64_t num_tokens) : tokens_(static_cast<size_t>(num_tokens)) {}

  // The next columns of the vocabulary of tokens [first, first + rows): two views [rows, C] of one shape, in host
  // memory.
  void add(int64_t first, const View& ours_TC, const View& theirs_TC);

  // After all columns: of tokens [begin, end).
  struct Result {
    int64_t num_tokens = 0;
    double mean_kl = 0, max_kl = 0, mean_cosine = 0;
    int64_t worst_token = -1;   // of max_kl
    double top1_agreement = 0;  // part of the tokens whose most likely next token is the same
    double max_difference = 0;  // of a logit, as part of the largest of theirs
    int64_t num_non_finite = 0;
  };
  Result result(int64_t begin, int64_t end) const;
  double kl(int64_t token) const;

 private:
  struct Token {
    double our_max = 0, our_sum = 0, our_product = 0;  // sum of exp(a - max), of exp(a - max) (a - b)
    double their_max = 0, their_sum = 0;
    double dot = 0, our_squares = 0, their_squares = 0, difference = 0, largest = 0;
    int64_t our_best = -1, their_best = -1, columns = 0, non_finite = 0;
  };
  std::vector<Token> tokens_;
};

std::string logits_header();
std::string logits_line(const std::string& name, const LogitComparison::Result& result);
nlohmann::json to_json(const LogitComparison::Result& result);

// name: of the sequence, or "logits". A failed gate becomes a finding.
void judge_logits(const std::string& name, const LogitComparison::Result& result, const LogitGates& gates,
                  const std::string& cause, Findings& findings);

}  // namespace temper::verify
