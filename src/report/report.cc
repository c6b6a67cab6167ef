#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "report/curves.h"
#include "report/html.h"
#include "report/key_figures.h"
#include "tensor/book.h"

namespace temper::report {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxSampleRows = 30, kMaxTextBytes = 20000;

// "a.b" for what lies in an object in an object; lists and other values as JSON.
void flatten(const Json& json, const std::string& prefix, std::vector<Row>& rows) {
  for (const auto& [name, value] : json.items()) {
    const std::string whole = prefix.empty() ? name : fmt::format("{}.{}", prefix, name);
    if (value.is_object() && !value.empty()) {
      flatten(value, whole, rows);
    } else {
      const std::string text =
          value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
      rows.push_back({whole, printable(text, kMaxTextBytes, /*keep_lines=*/true)});
    }
  }
}

std::string status_chip(RunStatus status) {
  switch (status) {
    case RunStatus::kRunning:
      return "<span class=\"status running\">running</span>";
    case RunStatus::kFinished:
      return "<span class=\"status finished\">finished</span>";
    case RunStatus::kInterrupted:
      break;
  }
  return "<span class=\"status interrupted\">interrupted</span>";
}

std::string header(const RunFiles& run) {
  std::string out = fmt::format("<header><h1>{}</h1>\n<p>{} <span class=\"faint\">{}</span></p>\n",
                                escape(run_name(run)), status_chip(run.status), escape(progress_text(run)));
  if (const std::string model = model_text(run); !model.empty()) out += "<p>" + escape(model) + "</p>\n";
  for (const std::string& note : run.notes) out += "<p class=\"interrupted\">" + escape(note) + "</p>\n";
  out += "<div class=\"tiles\">\n";
  for (const Row& tile : key_figures(run))
    out += fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(tile.value), escape(tile.name));
  return out + "</div></header>\n";
}

// gnuplot's picture without what only a file of its own needs; its titles would show up under the mouse.
std::string inline_svg(const Panel& panel) {
  const Figure figure{
      .num_columns = 1, .panel_width = 460, .panel_height = 290, .is_transparent = true, .panels = {panel}};
  std::string svg = draw(figure, ImageFormat::kSvg);
  svg.erase(0, svg.find("<svg"));
  for (const char* tag : {"title", "desc"}) {
    const std::string begin = fmt::format("<{}>", tag), end = fmt::format("</{}>", tag);
    for (size_t at; (at = svg.find(begin)) != svg.npos;) svg.erase(at, svg.find(end, at) + end.size() - at);
  }
  return svg.replace(0, 4, fmt::format("<svg class=\"chart\" role=\"img\" aria-label=\"{}\"", escape(panel.title)));
}

std::string charts(const std::vector<Panel>& panels) {
  std::string out;
  for (const Panel& panel : panels) {
    if (!panel.curves.empty()) out += "<div class=\"card\">" + inline_svg(panel) + "</div>\n";
  }
  return out.empty() ? out : "<div class=\"charts\">\n" + out + "</div>\n";
}

std::string curves(const RunFiles& run) {
  const std::vector<NamedRun> named = {{"training", run.log}};
  std::vector<Panel> panels;
  for (const char* field : {"loss", "mean_token_accuracy", "grad_norm", "learning_rate", "update_ratio",
                            "tokens_per_second", "mtp_loss", "indexer_loss"}) {
    if (!is_used(run.log, field)) continue;
    panels.push_back(make_panel(named, field, XAxis::kStep));
    // A legend of one entry says what the title says.
    if (panels.back().curves.back().style != CurveStyle::kDots)
      for (Curve& curve : panels.back().curves) curve.title.clear();
  }
  panels.push_back(make_group_panel(run.log, "grad_norm", "gradient norm of each group"));
  panels.push_back(make_group_panel(run.log, "tokens_by_source", "tokens of each source"));
  const std::string html = charts(panels);
  return html.empty() ? "" : section("Curves", html);
}

std::string experts(const RunFiles& run) {
  const std::vector<NamedRun> named = {{"", run.log}};
  std::vector<Panel> panels;
  for (const char* field :
       {"expert_overload", "dead_experts", "router_entropy", "balance_loss", "swiglu_clamp/share"}) {
    if (is_used(run.log, field)) panels.push_back(make_panel(named, field, XAxis::kStep));
  }
  panels.push_back(
      make_group_panel(run.log, "moe", "largest load of each layer, in multiples of the mean", "overload_"));
  const std::string html = charts(panels);
  return html.empty() ? "" : section("Experts", html);
}

std::string time_split(const RunFiles& run) {
  constexpr std::array kColors = {"#2f7ed8", "#e07b29", "#2e9e5b", "#a45bd6", "#7f7f7f", "#d64545"};
  const std::vector<TimeShare> shares = time_shares(run.log);
  if (shares.empty()) return "";
  std::string bar, legend;
  for (size_t i = 0; i < shares.size(); ++i) {
    const char* color = kColors[i % kColors.size()];
    bar += fmt::format("<div style=\"width:{:.3f}%;background:{}\"></div>", 100 * shares[i].share, color);
    legend += fmt::format("<span><i style=\"background:{}\"></i>{} {:.1f} % ({})</span>\n", color,
                          escape(shares[i].name), 100 * shares[i].share, escape(duration_text(shares[i].seconds)));
  }
  return section("Where the time went",
                 fmt::format("<div class=\"card\"><div class=\"bar\">{}</div><div class=\"legend\">\n{}</div></div>\n",
                             bar, legend));
}

std::string samples(const RunFiles& run) {
  if (run.samples.empty()) return "";
  const auto shown = [](const std::string& text) { return printable(text, 2000, /*keep_lines=*/true); };
  std::vector<std::vector<std::string>> rows;
  size_t num_exact = 0;
  for (const Sample& sample : run.samples) {
    const bool is_exact = sample.given == sample.expected;
    num_exact += is_exact;
    if (rows.size() < kMaxSampleRows)
      rows.push_back({shown(sample.prompt), shown(sample.given), shown(sample.expected), is_exact ? "\u2713" : ""});
  }
  const std::string title =
      fmt::format("Samples: {} of {} exactly as expected{}", num_exact, run.samples.size(),
                  rows.size() < run.samples.size() ? fmt::format(", the first {}", rows.size()) : "");
  return section(title, table({"prompt", "answer of the model", "expected", ""}, rows));
}

std::string incidents(const RunFiles& run) {
  std::string out;
  for (const IncidentFacts& incident : run.incidents) {
    std::vector<Row> rows;
    if (incident.facts.is_object()) flatten(incident.facts, "", rows);
    out += fmt::format("<h3>{}</h3>\n", escape(incident.name));
    // What the trainer said stands above its figures.
    const auto text = std::find_if(rows.begin(), rows.end(), [](const Row& row) { return row.name == "text"; });
    if (text != rows.end()) {
      out += fmt::format("<p class=\"said\">{}</p>\n", escape(text->value));
      rows.erase(text);
    }
    out += definition_table(rows);
  }
  return out.empty() ? "" : section("Incidents", out);
}

std::string states(const RunFiles& run) {
  std::vector<std::vector<std::string>> rows;
  for (const StateFacts& state : run.states) {
    rows.push_back({std::to_string(state.step), format_bytes(state.num_bytes),
                    state.score ? fmt::format("{:.4f}", *state.score) : "", state.is_pinned ? "pinned" : "",
                    state.hash});
  }
  return rows.empty() ? "" : section("Run states", table({"step", "size", "held-out loss", "kept", "hash"}, rows));
}

// What run.json says in a table of its own for each object in it.
std::string configuration(const RunFiles& run) {
  std::vector<Row> plain;
  std::string objects;
  for (const auto& [name, value] : run.description.items()) {
    if (!value.is_object()) {
      flatten({{name, value}}, "", plain);
      continue;
    }
    std::vector<Row> rows;
    flatten(value, "", rows);
    objects += fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", name == "configuration" ? " open" : "",
                           escape(name), definition_table(rows));
  }
  if (plain.empty() && objects.empty()) return "";
  return section("Configuration", definition_table(plain) + objects);
}

}  // namespace

std::string report_page(const RunFiles& run) {
  return page(run_name(run) + " - temper report", header(run) + incidents(run) + curves(run) + experts(run) +
                                                      time_split(run) + samples(run) + states(run) +
                                                      configuration(run));
}

}  // namespace temper::report
