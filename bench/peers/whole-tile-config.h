/*
 * Put before every file of the peer by build-llama-server.sh (-include), for compilers that declare `_tile_loadconfig` too short.
 *
 * The instruction reads the 64 bytes of a tile configuration. GCC 12, for one, tells its optimiser of the first 8, so that what was
 * written to the others is dropped as unused, and the program dies where it first uses its tiles. Here all 64 are named.
 */
#if defined(__AMX_TILE__) && defined(__GNUC__)
#include <immintrin.h>

static inline __attribute__((__always_inline__)) void whole_tile_loadconfig(const void *config)
{
    __asm__ volatile("ldtilecfg\t%0" ::"m"(*(const unsigned char(*)[64])config));
}

#define _tile_loadconfig whole_tile_loadconfig
#endif
