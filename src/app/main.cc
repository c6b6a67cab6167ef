// The temper program. Exit codes: 0 done, 2 the user's to mend, 3 a machine, a peer or a step failed, 1 our fault.
#include <fmt/format.h>

#include <cstdio>

#include "app/commands.h"
#include "base/error.h"

namespace {

constexpr int kOurFault = 1, kUsersToMend = 2;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("temper: post-trains DeepSeek-V4 models in full");
  app.require_subcommand(0, 1);  // so that a misspelt command is named; none at all is caught below
  temper::app::add_train(app);
  temper::app::add_launch(app);
  temper::app::add_verify(app);
  temper::app::add_generate(app);
  temper::app::add_chat(app);
  temper::app::add_eval(app);
  temper::app::add_inspect(app);
  temper::app::add_convert(app);
  temper::app::add_data(app);
  temper::app::add_plan(app);
  temper::app::add_plot(app);
  temper::app::add_report(app);
  try {
    app.parse(argc, argv);
    if (!app.get_subcommands().empty()) return 0;
    fmt::print(stderr, "{}", app.help());
    return kUsersToMend;
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // of a command that has said what it found
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsersToMend;  // prints help or what was wrong with the command line
  } catch (const temper::Error& error) {
    fmt::print(stderr, "temper: {}: {}\n", temper::error_code_name(error.code()), error.what());
    return temper::exit_code(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "temper: internal error: {}\n", error.what());
    return kOurFault;
  }
}
