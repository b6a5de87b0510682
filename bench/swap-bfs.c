/*
 * Breadth-first search in the style of Graph500: a Kronecker graph (A, B, C = 0.57, 0.19, 0.19; 16 edges a vertex), searched from several roots.
 *
 * Usage: swap-bfs SCALE ROOTS.  Prints the seconds of the searches, without making the graph, and how many vertices were reached.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EDGES 16

static uint64_t seed = 1;

static double draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (double)(seed >> 11) / (1ull << 53);
}

static void draw_edge(unsigned scale, uint32_t *from, uint32_t *to)
{
	*from = *to = 0;
	for (unsigned i = 0; i < scale; i++) {
		double d = draw();

		*from = *from << 1 | (d >= 0.76);
		*to = *to << 1 | ((d >= 0.57 && d < 0.76) || d >= 0.95);
	}
}

static uint64_t search(const uint32_t *first, const uint32_t *to, uint32_t *parent, uint32_t *queue, uint32_t root, uint32_t n)
{
	uint64_t head = 0, tail = 0;

	memset(parent, 255, n * sizeof(*parent));
	parent[root] = root;
	queue[tail++] = root;
	while (head < tail) {
		uint32_t v = queue[head++];

		for (uint32_t e = first[v]; e < first[v + 1]; e++)
			if (parent[to[e]] == UINT32_MAX) {
				parent[to[e]] = v;
				queue[tail++] = to[e];
			}
	}
	return tail;
}

int main(int argc, char **argv)
{
	unsigned scale = argc == 3 ? (unsigned)atoi(argv[1]) : 16, roots = argc == 3 ? (unsigned)atoi(argv[2]) : 1;
	uint32_t n = 1u << scale, nr = n * EDGES;
	uint32_t *from = malloc(nr * sizeof(*from)), *other = malloc(nr * sizeof(*other)), *first = calloc(n + 2ul, sizeof(*first));
	uint32_t *to = malloc(2ul * nr * sizeof(*to)), *parent = malloc(n * sizeof(*parent)), *queue = malloc(n * sizeof(*queue));
	struct timespec a, b;
	uint64_t reached = 0;

	for (uint32_t i = 0; i < nr; i++) {
		draw_edge(scale, &from[i], &other[i]);
		first[from[i] + 2]++;
		first[other[i] + 2]++;
	}
	for (uint32_t v = 2; v < n + 2; v++)
		first[v] += first[v - 1];
	for (uint32_t i = 0; i < nr; i++) {
		to[first[from[i] + 1]++] = other[i];
		to[first[other[i] + 1]++] = from[i];
	}
	free(from);
	free(other);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < roots; i++)
		reached += search(first, to, parent, queue, (uint32_t)(draw() * n), n);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.3f s, %llu reached\n", (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9, (unsigned long long)reached);
	return 0;
}
