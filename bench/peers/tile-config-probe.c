/* Compiled with and without STORE by build-llama-server.sh: where both give the same code, the store was optimised away. */
#include <immintrin.h>

void probe(unsigned char rows)
{
    unsigned char config[64] = {1};
#ifdef STORE
    config[48] = rows;
#endif
    (void)rows;
    _tile_loadconfig(config);
}
