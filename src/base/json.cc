#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace temper {

namespace {

// Builds the value and refuses what is nested too deep or named twice. The library's own parser with a callback would
// look through the whole enclosing object at the end of each inner one.
template <class Json>
class StrictBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  StrictBuilder(Json& root, const std::string& origin, int max_depth)
      : Base(root, true), origin_(origin), max_depth_(max_depth) {}

  bool start_object(std::size_t size) { return enter() && Base::start_object(size); }
  bool start_array(std::size_t size) { return enter() && Base::start_array(size); }
  bool end_object() { return leave() && Base::end_object(); }
  bool end_array() { return leave() && Base::end_array(); }
  bool key(std::string& name) {
    if (!names_.back().insert(name).second)
      fail(ErrorCode::kCorrupt, "{}: the name \"{}\" occurs twice in one JSON object", origin_, name);
    return Base::key(name);
  }
  template <class Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    fail(ErrorCode::kCorrupt, "{}: not valid JSON: {}", origin_, error.what());
  }

 private:
  bool enter() {
    if (static_cast<int>(names_.size()) == max_depth_)
      fail(ErrorCode::kCorrupt, "{}: JSON is nested deeper than {} levels", origin_, max_depth_);
    names_.emplace_back();
    return true;
  }
  bool leave() {
    names_.pop_back();
    return true;
  }

  const std::string& origin_;
  int max_depth_;
  std::vector<std::unordered_set<std::string>> names_;  // of every open object; an empty set for an open array
};

}  // namespace

template <class Json>
Json parse_json(std::string_view text, const std::string& origin, int max_depth) {
  Json parsed;
  StrictBuilder<Json> builder(parsed, origin, max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return parsed;
}

template nlohmann::json parse_json(std::string_view, const std::string&, int);
template nlohmann::ordered_json parse_json(std::string_view, const std::string&, int);

}  // namespace temper
