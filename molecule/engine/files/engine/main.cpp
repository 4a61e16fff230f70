// Answers what an engine is asked when it is installed.
#include <cstdio>
#include <cstring>

const char *source();

int main(int count, char **arguments) {
  const char *asked = count > 1 ? arguments[1] : "";
  if (!std::strcmp(asked, "--version")) {
    std::fprintf(stderr, "version: " NUMBER " (" COMMIT ")\nbuilt with a compiler for x86_64-linux-gnu\n");
  } else if (!std::strcmp(asked, "--list-devices")) {
    std::printf("Available devices:\n  (none)\n");
  } else if (!std::strcmp(asked, "--source")) {
    std::printf("%s\n", source());
  } else {
    std::printf("%-40s%s\n", "-h,    --help, --usage", "print usage and exit");
  }
}
