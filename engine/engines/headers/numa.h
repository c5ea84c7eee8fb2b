/* What vLLM's CPU extension uses of libnuma, so that only the library itself must be there. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

struct bitmask {
  unsigned long size; /* of the set, in bits */
  unsigned long *maskp;
};

int numa_available(void);
int numa_node_of_cpu(int cpu);
int numa_migrate_pages(int pid, struct bitmask *from, struct bitmask *to);
void numa_set_membind(struct bitmask *nodes);
void numa_set_strict(int flag);
struct bitmask *numa_get_membind(void);
struct bitmask *numa_parse_cpustring(const char *text);
struct bitmask *numa_parse_nodestring(const char *text);
void numa_bitmask_free(struct bitmask *mask);

static inline void numa_free_nodemask(struct bitmask *mask) { numa_bitmask_free(mask); }

#ifdef __cplusplus
}
#endif
