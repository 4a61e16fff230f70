// Assertions of llama.cpp carry the names of their files into the libraries; so does this.
const char *source() { return __FILE__; }
