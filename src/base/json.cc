#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace temper {

template <class Json>
Json parse_json(std::string_view text, const std::string& origin, int max_depth) {
  std::vector<std::set<std::string>> names;  // of every open object; an empty set for an open array
  const auto watch = [&](int, typename Json::parse_event_t event, Json& parsed) {
    using Event = typename Json::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (static_cast<int>(names.size()) == max_depth)
          fail(ErrorCode::kCorrupt, "{}: JSON is nested deeper than {} levels", origin, max_depth);
        names.emplace_back();
        break;
      case Event::object_end:
      case Event::array_end:
        names.pop_back();
        break;
      case Event::key: {
        const auto& name = parsed.template get_ref<const std::string&>();
        if (!names.back().insert(name).second)
          fail(ErrorCode::kCorrupt, "{}: the name \"{}\" occurs twice in one JSON object", origin, name);
        break;
      }
      case Event::value:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const typename Json::exception& error) {
    fail(ErrorCode::kCorrupt, "{}: not valid JSON: {}", origin, error.what());
  }
}

template nlohmann::json parse_json(std::string_view, const std::string&, int);
template nlohmann::ordered_json parse_json(std::string_view, const std::string&, int);

}  // namespace temper
