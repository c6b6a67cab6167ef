// Where a directory that came from elsewhere may lead a reader: nowhere but into itself.
#pragma once

#include <filesystem>

namespace temper {

// dir/name, to be read; name may lie in a folder of dir. A link is followed only to a file below dir or, where dir is a
// snapshot in the Hugging Face cache (REPO/snapshots/REVISION), below REPO/blobs. Refuses (kInvalidArgument) a link to
// anywhere else and one that leads nowhere. What is not there is left to who opens it.
std::filesystem::path path_inside(const std::filesystem::path& dir, const std::filesystem::path& name);

}  // namespace temper
