// The commands of the temper program, one file each: arguments and printing only. Every function adds one subcommand
// whose callback does the work and throws Error when it cannot.
#pragma once

#include <CLI/CLI.hpp>

namespace temper::app {

// Exit code of a run that its guard stopped: started again it would meet the same step.
inline constexpr int kStoppedByGuard = 4;

void add_train(CLI::App& app);
void add_launch(CLI::App& app);
void add_verify(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_eval(CLI::App& app);
void add_inspect(CLI::App& app);
void add_convert(CLI::App& app);
void add_data(CLI::App& app);
void add_plan(CLI::App& app);
void add_plot(CLI::App& app);
void add_report(CLI::App& app);

}  // namespace temper::app
