/* How many TCP connections a second: a server that says one byte to each, and a client that makes one after another.

       connections serve PORT
       connections ask ADDRESS PORT SECONDS      prints connections a second

   The client resets each connection, so that neither side keeps it for a minute and runs out of ports. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int serve(int port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listening, (struct sockaddr *)&here, sizeof here) || listen(listening, 128))
		return fail("bind");
	for (;;) {
		int connection = accept(listening, NULL, NULL);
		if (connection < 0)
			continue;
		if (write(connection, "x", 1) != 1)
			perror("write");
		close(connection);
	}
}

static int ask(const char *address, int port, double seconds)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct linger reset = { .l_onoff = 1 };
	char byte;
	long count = 0;
	double begin = now(), end = begin + seconds;

	inet_pton(AF_INET, address, &there.sin_addr);
	while (now() < end) {
		int connection = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(connection, (struct sockaddr *)&there, sizeof there))
			return fail("connect");
		if (read(connection, &byte, 1) != 1)
			return fail("read");
		setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(connection);
		count++;
	}
	printf("%.0f\n", count / (now() - begin));
	return 0;
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "serve"))
		return serve(atoi(words[2]));
	if (count == 5 && !strcmp(words[1], "ask"))
		return ask(words[2], atoi(words[3]), atof(words[4]));
	fputs("usage: connections serve PORT | ask ADDRESS PORT SECONDS\n", stderr);
	return 2;
}
