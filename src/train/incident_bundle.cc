#include "train/incident_bundle.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_numbers.h"
#include "parallel/texts.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Data may hold bytes that are not UTF-8.
std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json statistic_json(const OpStatistic& s) {
  Json json = {{"instruction", s.place.instruction},
               {"layer", s.place.layer},
               {"op", backend::kOpNames[static_cast<int>(s.op)]},
               {"operand", s.operand},
               {"tensor", s.tensor},
               {"num_elements", s.num_elements},
               {"num_nonfinite", s.num_nonfinite}};
  json["largest"] = s.largest;
  json["rms"] = s.rms;
  return json;
}

// Of the document in which the bad value stands, or empty.
std::string sample_text(const BundleContents& contents) {
  const auto& bad = contents.incident.bad;
  if (!bad || !bad->place) return "";
  const layers::MicroBatch& batch = contents.data.micro_batches[bad->place->micro_batch];
  const int32_t begin = batch.cu_seqlens[bad->place->document], end = batch.cu_seqlens[bad->place->document + 1];
  return contents.decode(std::span(batch.tokens).subspan(begin, end - begin));
}

Json ranks_of_micro_batches(const BundleContents& contents) {
  const parallel::Ranks& ranks = *contents.ranks;
  Json lists = Json::array();
  for (const int64_t dp_rank : contents.incident.dp_rank_M) {
    Json& list = lists.emplace_back(Json::array());
    for (int64_t rank = 0; rank < ranks.world->size(); ++rank)
      if (parallel::mesh_rank(ranks.layout, rank).dp == dp_rank) list.push_back(rank);
  }
  return lists;
}

std::string statistics_name(const comm::Comm* world) {
  return world ? fmt::format("statistics-{:05}.jsonl", world->rank()) : "statistics.jsonl";
}

Json incident_json(const BundleContents& contents) {
  Json json = {{"format", "temper incident"}};
  json.update(to_json(contents.incident));
  json["action"] = contents.action;
  json["learning_rate"] = contents.learning_rate;
  json["state"] = nullptr;
  if (contents.state) json["state"] = {{"step", contents.state->step}, {"hash", contents.state->hash}};
  json["sample_text"] = sample_text(contents);
  if (contents.ranks) {
    json["layout"] = contents.ranks->layout.to_string();
    json["ranks"] = ranks_of_micro_batches(contents);
  }
  return json;
}

void write_whole(Files& files, const fs::path& path, const std::string& text) {
  const auto file = files.create(path);
  file->write(text.data(), static_cast<int64_t>(text.size()));
  file->sync();
}

}  // namespace

std::string batch_lines(const data::LoaderStep& data) {
  std::string lines;
  for (int64_t m = 0; m < std::ssize(data.micro_batches); ++m) {
    const layers::MicroBatch& batch = data.micro_batches[m];
    Json weights = Json::array(), samples = Json::array();
    for (const float weight : batch.weights) weights.push_back(number_json(weight));
    if (m < std::ssize(data.documents))
      for (const data::Example* example : data.documents[m]) samples.push_back(example->origin);
    lines += dump({{"tokens", batch.tokens},
                   {"targets", batch.targets},
                   {"weights", weights},
                   {"cu_seqlens", batch.cu_seqlens},
                   {"samples", samples}});
  }
  return lines;
}

fs::path write_bundle(const fs::path& run_dir, const BundleContents& contents, Files& files) {
  const std::string name = fmt::format("incident-{:08}", contents.incident.step);
  const fs::path place = run_dir / name, beside = run_dir / fmt::format(".writing-{}", name);
  comm::Comm* world = contents.ranks ? contents.ranks->world : nullptr;
  const bool is_first = comm::group_rank(world) == 0;
  parallel::together(world, [&] {
    if (!is_first) return;
    files.remove_all(beside);
    files.make_directories(beside);
  });
  parallel::together(world, [&] {
    std::string lines;
    for (const OpStatistic& s : contents.incident.statistics) lines += dump(statistic_json(s));
    write_whole(files, beside / statistics_name(world), lines);
  });
  parallel::together(world, [&] {
    if (!is_first) return;
    write_whole(files, beside / "incident.json", dump(incident_json(contents), 2));
    write_whole(files, beside / "run.json", dump({{"configuration", contents.configuration}}, 2));
    write_whole(files, beside / "batch.jsonl", batch_lines(contents.data));
    files.sync_directory(beside);
    files.remove_all(place);
    files.rename(beside, place);
    files.sync_directory(run_dir);
  });
  return place;
}

Bundle read_bundle(const fs::path& dir) {
  const auto read = [&](const char* name) {
    const fs::path path = dir / name;
    return parse_json<Json>(read_file(path), path.string());
  };
  const Json incident = read("incident.json"), run = read("run.json");
  Bundle bundle;
  try {
    bundle.step = whole_number(incident.at("step"));
    bundle.is_of_many = incident.contains("layout");
    bundle.is_transient = incident.at("verdict").get<std::string>() == "transient";
    bundle.first_bad = incident.at("first_bad");
    bundle.text = incident.at("text").get<std::string>();
    if (const Json& state = incident.at("state"); !state.is_null())
      bundle.state = StateReference{whole_number(state.at("step")), state.at("hash").get<std::string>()};
    bundle.configuration = run.at("configuration");
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kCorrupt, "{} is not an incident bundle: {}", dir.string(), error.what());
  }
  const bool plausible = bundle.step > 0 && bundle.configuration.is_object() &&
                         (!bundle.state || (bundle.state->step >= 0 && bundle.state->step < bundle.step));
  if (!plausible) fail(ErrorCode::kCorrupt, "{} is not an incident bundle: impossible values", dir.string());
  bundle.batch = read_file(dir / "batch.jsonl");
  return bundle;
}

}  // namespace temper::train
