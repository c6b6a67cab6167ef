#include "report/plot.h"

#include <fmt/format.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/nearest.h"

namespace temper::report {
namespace {

const std::vector<std::string> kDefaultFields = {"loss", "grad_norm", "learning_rate", "tokens_per_second"};

ImageFormat format_of(const std::filesystem::path& out) {
  if (out.extension() == ".svg") return ImageFormat::kSvg;
  if (out.extension() == ".png") return ImageFormat::kPng;
  fail(ErrorCode::kInvalidArgument, "--out {}: expected a name that ends in .svg or .png", out.string());
}

[[noreturn]] void refuse_field(const std::string& field, const std::vector<NamedRun>& runs) {
  std::set<std::string_view> known;
  for (const NamedRun& run : runs) {
    for (const auto& [name, series] : run.log.series) known.insert(name);
  }
  const std::vector<std::string_view> names(known.begin(), known.end());
  std::string list;
  for (const std::string_view name : names) list += fmt::format("{}{}", list.empty() ? "" : ", ", name);
  const std::string_view nearest = nearest_name(field, names);
  fail(ErrorCode::kInvalidArgument, "no run has the field {}{}; there are: {}", printable(field),
       nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest), printable(list, 1000));
}

}  // namespace

std::vector<std::string> plot(const PlotRequest& request) {
  const ImageFormat format = format_of(request.out);
  const std::vector<NamedRun> runs = read_runs(request.runs);
  std::vector<std::string> notes;
  for (const NamedRun& run : runs) notes.insert(notes.end(), run.log.notes.begin(), run.log.notes.end());

  Figure figure;
  for (const std::string& field : request.fields.empty() ? kDefaultFields : request.fields) {
    Panel panel = make_panel(runs, field, request.axis);
    if (!panel.curves.empty()) {
      figure.panels.push_back(std::move(panel));
    } else if (!request.fields.empty()) {
      refuse_field(field, runs);
    }
  }
  if (figure.panels.empty()) refuse_field(kDefaultFields[0], runs);
  if (figure.panels.size() == 1) figure.panel_width = 900, figure.panel_height = 500;
  // The legend is the same in every panel: the first one has it.
  for (size_t i = 1; i < figure.panels.size(); ++i) {
    for (Curve& curve : figure.panels[i].curves) curve.title.clear();
  }
  write_file_atomically(request.out, draw(figure, format));
  return notes;
}

}  // namespace temper::report
