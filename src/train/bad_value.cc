#include "train/bad_value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace temper::train {

TokenPlace token_place(const data::LoaderStep& data, int64_t micro_batch, int64_t token, int64_t num_tokens) {
  const layers::MicroBatch& batch = data.micro_batches[micro_batch];
  const auto& borders = batch.cu_seqlens;
  TokenPlace place;
  place.micro_batch = micro_batch, place.token = token, place.num_tokens = num_tokens;
  place.document = std::upper_bound(borders.begin(), borders.end(), token) - borders.begin() - 1;
  place.position = token - borders[place.document];
  place.token_id = batch.tokens[token];
  if (micro_batch < std::ssize(data.documents) && place.document < std::ssize(data.documents[micro_batch]))
    place.sample = data.documents[micro_batch][place.document]->origin;
  return place;
}

namespace {

std::string describe(const TokenPlace& place) {
  const std::string tokens =
      place.num_tokens == 1 ? fmt::format("token {} (id {})", place.position, place.token_id)
                            : fmt::format("tokens {} to {}", place.position, place.position + place.num_tokens - 1);
  return fmt::format("{} of document {} in micro-batch {}{}", tokens, place.document, place.micro_batch,
                     place.sample.empty() ? "" : ", sample " + place.sample);
}

}  // namespace

std::string describe(const BadValue& bad) {
  const double value = std::isnan(bad.value) ? std::abs(bad.value) : bad.value;  // a NaN's sign says nothing
  std::string text = fmt::format("{}[{}] = {:.6g} {}", bad.tensor, fmt::join(bad.index, ", "), value, bad.finding);
  if (!bad.op.empty()) {
    text += fmt::format("; {} {} of {}{}, {}", bad.was_read ? "read as" : "written as", bad.operand, bad.op,
                        bad.layer < 0 ? "" : fmt::format(" in layer {}", bad.layer), bad.instruction);
  }
  if (bad.place) text += "; " + describe(*bad.place);
  if (!bad.reads.empty() && !bad.was_read) text += fmt::format("; the op read {}", fmt::join(bad.reads, ", "));
  return text;
}

nlohmann::ordered_json number_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

nlohmann::ordered_json to_json(const BadValue& bad) {
  nlohmann::ordered_json json = {{"finding", bad.finding}, {"tensor", bad.tensor}, {"index", bad.index}};
  if (bad.rank >= 0) json["rank"] = bad.rank;
  json["value"] = number_json(bad.value);
  if (!bad.op.empty()) {
    json["instruction"] = bad.instruction;
    json["layer"] = bad.layer;
    json["op"] = bad.op;
    json["operand"] = bad.operand;
    json["was_read"] = bad.was_read;
    json["reads"] = bad.reads;
  }
  if (bad.place) {
    const TokenPlace& place = *bad.place;
    json["micro_batch"] = place.micro_batch;
    json["token"] = place.token;
    json["num_tokens"] = place.num_tokens;
    json["token_id"] = place.token_id;
    json["document"] = place.document;
    json["position_in_document"] = place.position;
    json["sample"] = place.sample;
  }
  return json;
}

BadValue bad_value_from(const nlohmann::ordered_json& json) {
  BadValue bad;
  bad.finding = json.at("finding"), bad.tensor = json.at("tensor");
  bad.index = json.at("index").get<std::vector<int64_t>>();
  bad.rank = json.value("rank", int64_t{-1});
  const auto& value = json.at("value");
  bad.value = value.is_number() ? value.get<double>() : std::strtod(value.get<std::string>().c_str(), nullptr);
  if (json.contains("op")) {
    bad.instruction = json.at("instruction"), bad.layer = json.at("layer");
    bad.op = json.at("op"), bad.operand = json.at("operand"), bad.was_read = json.at("was_read");
    bad.reads = json.at("reads").get<std::vector<std::string>>();
  }
  if (json.contains("micro_batch")) {
    bad.place = {.micro_batch = json.at("micro_batch"),
                 .token = json.at("token"),
                 .num_tokens = json.at("num_tokens"),
                 .document = json.at("document"),
                 .position = json.at("position_in_document"),
                 .token_id = json.at("token_id"),
                 .sample = json.at("sample")};
  }
  return bad;
}

}  // namespace temper::train
