#include "train/run_state.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <bit>

#include "base/error.h"
#include "base/json_numbers.h"

namespace temper::train {
namespace {

using Json = nlohmann::ordered_json;

Json heldout_json(const std::optional<HeldoutResult>& result) {
  if (!result) return nullptr;
  return {{"loss", result->loss}, {"accuracy", result->accuracy}, {"num_targets", result->num_targets}};
}

std::optional<HeldoutResult> parse_heldout(const Json& json) {
  if (json.is_null()) return std::nullopt;
  return HeldoutResult{json.at("loss"), json.at("accuracy"), whole_number(json.at("num_targets"))};
}

int64_t parse_count(const Json& json, const char* name) {
  const Json& value = json.at(name);
  if (!value.is_number_integer() || whole_number(value) < 0)
    fail(ErrorCode::kCorrupt, "\"{}\" is {}, not a count", name, value.dump());
  return value;
}

RunTotals parse_totals(const Json& json) {
  RunTotals totals;
  totals.num_tokens = parse_count(json, "num_tokens");
  totals.train_seconds = json.at("train_seconds");
  totals.model_flops = json.at("model_flops");
  totals.first_loss = json.at("first_loss");
  totals.last_loss = json.at("last_loss");
  totals.heldout_before = parse_heldout(json.at("heldout_before"));
  totals.heldout_after = parse_heldout(json.at("heldout_after"));
  return totals;
}

uint64_t parse_chain(const std::string& text) {
  size_t used = 0;
  const uint64_t chain = text.size() == 16 ? std::stoull(text, &used, 16) : 0;
  if (used != 16) fail(ErrorCode::kCorrupt, "\"chain\" is \"{}\", not 16 hexadecimal digits", text);
  return chain;
}

RunState parse(const Json& json) {
  RunState state;
  state.step = parse_count(json, "step");
  state.num_updates = parse_count(json, "num_updates");
  state.chain = parse_chain(json.at("chain"));
  state.loader = data::LoaderPosition::from_json(json.at("loader").dump());
  state.totals = parse_totals(json.at("totals"));
  state.tokens_by_source = json.at("tokens_by_source");
  for (const auto& [name, unused] : json.at("log_bytes").items())
    state.log_bytes[name] = parse_count(json.at("log_bytes"), name.c_str());
  state.guard = json.at("guard");
  state.configuration = json.at("configuration");
  if (!state.configuration.is_object()) fail(ErrorCode::kCorrupt, "\"configuration\" is not an object");
  state.configuration_hash = json.at("configuration_hash");
  state.model_config = json.at("model_config");
  state.machine = json.at("machine");
  return state;
}

}  // namespace

Json RunState::to_json() const {
  return {{"step", step},
          {"num_updates", num_updates},
          {"chain", fmt::format("{:016x}", chain)},
          {"loader", Json::parse(loader.to_json())},
          {"totals",
           {{"num_tokens", totals.num_tokens},
            {"train_seconds", totals.train_seconds},
            {"model_flops", totals.model_flops},
            {"first_loss", totals.first_loss},
            {"last_loss", totals.last_loss},
            {"heldout_before", heldout_json(totals.heldout_before)},
            {"heldout_after", heldout_json(totals.heldout_after)}}},
          {"tokens_by_source", tokens_by_source},
          {"guard", guard},
          {"log_bytes", log_bytes},
          {"configuration", configuration},
          {"configuration_hash", configuration_hash},
          {"model_config", model_config},
          {"machine", machine}};
}

RunState RunState::from_json(const Json& json, const std::string& origin) {
  try {
    return parse(json);
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kCorrupt, "{}: not the facts of a run: {}", origin, error.what());
  } catch (const std::logic_error& error) {  // of std::stoull
    fail(ErrorCode::kCorrupt, "{}: not the facts of a run: {}", origin, error.what());
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", origin, error.what());
  }
}

uint64_t extend_chain(uint64_t chain, int64_t step, const StepResult& result) {
  const uint64_t link[] = {chain,
                           static_cast<uint64_t>(step),
                           std::bit_cast<uint64_t>(result.loss),
                           std::bit_cast<uint64_t>(result.norms.global),
                           std::bit_cast<uint64_t>(result.learning_rate),
                           static_cast<uint64_t>(result.num_tokens)};
  return XXH3_64bits(link, sizeof(link));
}

}  // namespace temper::train
