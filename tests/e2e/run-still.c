/* A program into which nothing can be loaded: it is linked statically. */
#include <stdio.h>

int main(void)
{
	puts("it ran");
	return 0;
}
