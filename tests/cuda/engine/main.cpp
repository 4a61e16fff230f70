// Answers what an engine is asked when it is installed.
#include <cstdio>
#include <cstring>

int devices();

int main(int count, char **arguments) {
  const char *asked = count > 1 ? arguments[1] : "";
  if (!std::strcmp(asked, "--version")) {
    std::fprintf(stderr, "version: 11549 (0123456)\nbuilt with a compiler for x86_64-linux-gnu\n");
  } else if (!std::strcmp(asked, "--list-devices")) {
    std::printf("Available devices:\n");
    for (int device = 0, found = devices(); device < found; device++) {
      std::printf("  CUDA%d: a device (1024 MiB, 1024 MiB free)\n", device);
    }
  } else {
    std::printf("%-40s%s\n", "-h,    --help, --usage", "print usage and exit");
  }
}
