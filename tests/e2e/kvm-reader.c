/*
 * A KVM guest whose memory comes from the daemon through libcistern: two virtual CPUs, one from each end, compare every
 * word of it with a reference copy.
 *
 * Usage: kvm-reader anonymous|shared SOCKET REFERENCE
 * REFERENCE is the raw memory that the image was made of.  Exit 0: all equal; 77: KVM cannot run such a guest here, with
 * the reason; 1: anything else.
 *
 * The guest's code runs in long mode at CPL 3, so that flavours of KVM which emulate kernel code run it natively too.
 * Code and page tables lie in memory of their own, at the bottom; the served region and the reference lie above 1 GiB and 2 GiB.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cistern/cistern.h"

#define SERVED_GPA    (1ull << 30)
#define REFERENCE_GPA (2ull << 30)
#define REGION_MAX    (1ull << 30)
#define LOW_BYTES     (1u << 20)
#define CODE_GPA      0x1000
#define TABLES_GPA    0x10000  /* one table of each upper level, then page directories for 4 GiB in pages of 2 MiB */

#define DONE_PORT     0x10

/*
 * rsi: first word to read, rdi: the same of the reference, rbx: step in bytes, rcx: words.  Ends with an exit to us; rcx is what was
 * left then, 0 when all were equal.
 */
__asm__(".pushsection .rodata\n"
	"guest_code:\n"
	"1:	mov	(%rsi), %rdx\n"
	"	cmp	(%rdi), %rdx\n"
	"	jne	2f\n"
	"	add	%rbx, %rsi\n"
	"	add	%rbx, %rdi\n"
	"	dec	%rcx\n"
	"	jnz	1b\n"
	"2:	out	%eax, $0x10\n"
	"	jmp	2b\n"
	"guest_code_end:\n"
	".popsection\n");
extern const char guest_code[], guest_code_end[];

struct vm {
	int kvm, fd;
	size_t run_bytes;
	uint8_t *low;
	uint64_t *served, *reference;
	uint64_t bytes;
};

struct vcpu {
	struct vm *vm;
	int fd;
	struct kvm_run *run;
	int64_t step;
	uint64_t left; /* words that were not compared, or UINT64_MAX: it did not run to its end */
	pthread_t thread;
};

static void __attribute__((noreturn, format(printf, 2, 3))) end(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(status);
}

static void add_slot(const struct vm *vm, uint32_t slot, uint64_t gpa, void *addr, uint64_t bytes)
{
	struct kvm_userspace_memory_region r = { .slot = slot, .guest_phys_addr = gpa, .memory_size = bytes,
						 .userspace_addr = (uintptr_t)addr };

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r))
		end(1, "memory slot %u: %s", slot, strerror(errno));
}

/* Everything is present, writable and the user's: 0x7; 0x80 makes an entry of a page directory a page of 2 MiB. */
static void write_tables(uint8_t *low)
{
	uint64_t *table = (uint64_t *)(void *)(low + TABLES_GPA);

	table[0] = (TABLES_GPA + 0x1000) | 0x7;
	for (uint64_t i = 0; i < 4; i++)
		table[512 + i] = (TABLES_GPA + (2 + i) * 0x1000) | 0x7;
	for (uint64_t i = 0; i < 4 * 512; i++)
		table[1024 + i] = i << 21 | 0x87;
}

static void make_vm(struct vm *vm)
{
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		end(77, "/dev/kvm: %s", strerror(errno));
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		end(77, "/dev/kvm makes no virtual machine: %s", strerror(errno));
	ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul); /* some processors need it, others refuse it */
	vm->run_bytes = (size_t)ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->low = mmap(NULL, LOW_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->low == MAP_FAILED)
		end(1, "memory: %s", strerror(errno));
	memcpy(vm->low + CODE_GPA, guest_code, (size_t)(guest_code_end - guest_code));
	write_tables(vm->low);
	add_slot(vm, 0, 0, vm->low, LOW_BYTES);
}

static void set_cpuid(const struct vcpu *cpu)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} *cpuid = calloc(1, sizeof(*cpuid));

	if (!cpuid)
		end(1, "out of memory");
	cpuid->head.nent = 256;
	if (ioctl(cpu->vm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) || ioctl(cpu->fd, KVM_SET_CPUID2, cpuid))
		end(77, "/dev/kvm takes no CPUID: %s", strerror(errno));
	free(cpuid);
}

/* Long mode, paging on, CPL 3; protection, cache and numeric-error bits as a kernel sets them. */
static void set_mode(const struct vcpu *cpu)
{
	struct kvm_segment code = { .limit = ~0u, .selector = 0x2b, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = 0x23, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1 };
	struct kvm_sregs s;

	if (ioctl(cpu->fd, KVM_GET_SREGS, &s))
		end(77, "KVM_GET_SREGS: %s", strerror(errno));
	s.cr0 = 0x80050033;
	s.cr3 = TABLES_GPA;
	s.cr4 = 0x20;
	s.efer = 0x500;
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	if (ioctl(cpu->fd, KVM_SET_SREGS, &s))
		end(77, "/dev/kvm refuses long mode at CPL 3: %s", strerror(errno));
}

static void make_vcpu(struct vcpu *cpu, struct vm *vm, int id)
{
	cpu->vm = vm;
	cpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (cpu->fd < 0)
		end(77, "/dev/kvm makes no virtual CPU: %s", strerror(errno));
	cpu->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	if (cpu->run == MAP_FAILED)
		end(1, "kvm_run: %s", strerror(errno));
	set_cpuid(cpu);
	set_mode(cpu);
}

/* I/O privilege 3 in the flags, for the exit by a port. */
static void set_registers(const struct vcpu *cpu, uint64_t served, uint64_t reference, uint64_t words)
{
	uint64_t skip = cpu->step < 0 ? (words - 1) * 8 : 0;
	struct kvm_regs r = { .rip = CODE_GPA, .rsp = CODE_GPA, .rflags = 0x3002, .rsi = served + skip, .rdi = reference + skip,
			      .rbx = (uint64_t)cpu->step, .rcx = words };

	if (ioctl(cpu->fd, KVM_SET_REGS, &r))
		end(1, "KVM_SET_REGS: %s", strerror(errno));
}

static void *run(void *arg)
{
	struct vcpu *cpu = arg;
	struct kvm_regs r;
	int failed;

	do {
		failed = ioctl(cpu->fd, KVM_RUN, 0);
	} while (failed && errno == EINTR);
	cpu->left = UINT64_MAX;
	if (failed)
		printf("KVM_RUN: %s\n", strerror(errno));
	else if (cpu->run->exit_reason != KVM_EXIT_IO || cpu->run->io.port != DONE_PORT)
		printf("the guest ended with exit reason %u\n", cpu->run->exit_reason);
	else if (!ioctl(cpu->fd, KVM_GET_REGS, &r))
		cpu->left = r.rcx;
	return NULL;
}

/* Code, page tables and ports work: the guest compares a page of its own tables with itself. */
static void check_kvm(struct vcpu *cpu)
{
	set_registers(cpu, TABLES_GPA, TABLES_GPA, 512);
	run(cpu);
	if (cpu->left)
		end(77, "/dev/kvm cannot run a guest in long mode at CPL 3");
}

static void map_reference(struct vm *vm, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || st.st_size <= 0 || st.st_size > (off_t)REGION_MAX || st.st_size % 4096)
		end(1, "%s: not a memory file of up to 1 GiB", path);
	vm->bytes = (uint64_t)st.st_size;
	vm->reference = mmap(NULL, vm->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (vm->reference == MAP_FAILED)
		end(1, "%s: %s", path, strerror(errno));
	close(fd);
	add_slot(vm, 2, REFERENCE_GPA, vm->reference, vm->bytes);
}

static struct cis_memory *map_served(struct vm *vm, bool shared, const char *socket)
{
	int fd = shared ? memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
	struct cis_memory_opts opts = { .size = sizeof(opts), .flags = CIS_MEMORY_WAIT, .socket = socket, .fd = fd,
					.mapping = shared ? CIS_MAPPING_SHARED : CIS_MAPPING_ANONYMOUS };
	struct cis_region_opts region = { .size = sizeof(region), .bytes = vm->bytes };
	struct cis_memory *memory;

	if (shared && (fd < 0 || ftruncate(fd, (off_t)vm->bytes)))
		end(1, "memfd: %s", strerror(errno));
	vm->served = mmap(NULL, vm->bytes, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (vm->served == MAP_FAILED)
		end(1, "memory: %s", strerror(errno));
	region.addr = vm->served;
	if (cis_memory_create(&opts, &memory) || cis_memory_add_region(memory, &region) || cis_memory_attach(memory))
		end(1, "%s", cis_error());
	add_slot(vm, 1, SERVED_GPA, vm->served, vm->bytes);
	return memory;
}

static void check_words(const struct vm *vm, struct vcpu *cpus)
{
	uint64_t words = vm->bytes / 8;

	for (int i = 0; i < 2; i++) {
		set_registers(&cpus[i], SERVED_GPA, REFERENCE_GPA, words);
		if (pthread_create(&cpus[i].thread, NULL, run, &cpus[i]))
			end(1, "no thread");
	}
	for (int i = 0; i < 2; i++)
		pthread_join(cpus[i].thread, NULL);
	for (int i = 0; i < 2; i++) {
		uint64_t read = words - cpus[i].left, at = i ? cpus[i].left - 1 : read;

		if (cpus[i].left == UINT64_MAX)
			end(1, "virtual CPU %d did not end as it should", i);
		if (cpus[i].left)
			end(1, "virtual CPU %d read a wrong word at offset 0x%lx: %016lx, not %016lx", i, at * 8, vm->served[at],
			    vm->reference[at]);
	}
}

int main(int argc, char **argv)
{
	struct vcpu cpus[2] = { { .step = 8 }, { .step = -8 } };
	struct vm vm;

	if (argc != 4 || (strcmp(argv[1], "anonymous") && strcmp(argv[1], "shared")))
		end(1, "usage: kvm-reader anonymous|shared SOCKET REFERENCE");
	make_vm(&vm);
	for (int i = 0; i < 2; i++)
		make_vcpu(&cpus[i], &vm, i);
	check_kvm(&cpus[0]);
	map_reference(&vm, argv[3]);
	struct cis_memory *memory = map_served(&vm, !strcmp(argv[1], "shared"), argv[2]);

	check_words(&vm, cpus);
	printf("%lu words equal\n", vm.bytes / 8);
	munmap(vm.served, vm.bytes);
	cis_memory_destroy(memory);
	return 0;
}
