/* Block, raise, pending, sigwait, unblock, as the textbooks on Unix programming show it, in plain POSIX. textbook.rs beside this file is the
 * same program with sigsafe; tests/textbook.rs compiles both and compares what they print, line for line.
 *
 *   cc -o textbook textbook.c && ./textbook
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *name(int signal) {
    static char text[32];
    switch (signal) {
    case SIGHUP: return "SIGHUP";
    case SIGINT: return "SIGINT";
    case SIGQUIT: return "SIGQUIT";
    case SIGUSR1: return "SIGUSR1";
    case SIGUSR2: return "SIGUSR2";
    case SIGTERM: return "SIGTERM";
    case SIGKILL: return "SIGKILL";
    case SIGSTOP: return "SIGSTOP";
    }
    snprintf(text, sizeof text, "SIGRTMIN+%d", signal - SIGRTMIN);
    return text;
}

/* The signals of a set in the order of their numbers. */
static void print_set(const char *what, const sigset_t *set) {
    int none = 1;
    printf("%s:", what);
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        if (sigismember(set, signal) == 1) {
            printf(" %s", name(signal));
            none = 0;
        }
    printf("%s\n", none ? " none" : "");
}

static void print_pending(void) {
    sigset_t set;
    sigpending(&set);
    print_set("pending", &set);
}

static sigset_t set_of(int first, int second) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, first);
    if (second)
        sigaddset(&set, second);
    return set;
}

/* Says which signal it is: with write, since printf may be in the middle of something. */
static void handler(int signal) {
    const char *text = signal == SIGINT ? "  handler: SIGINT\n" : signal == SIGQUIT ? "  handler: SIGQUIT\n" : "  handler: SIGTERM\n";
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

int main(void) {
    sigset_t before, old, set;
    siginfo_t info;
    int signal;
    const int real_time = SIGRTMIN + 1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGQUIT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    puts("a raised signal is handled before raise returns");
    raise(SIGINT);

    puts("block two");
    set = set_of(SIGINT, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    print_set("blocked before", &before);
    pthread_sigmask(SIG_BLOCK, NULL, &old);
    print_set("blocked now", &old);

    puts("raise both, one of them twice");
    raise(SIGINT);
    raise(SIGINT);
    raise(SIGUSR1);
    print_pending();

    puts("sigwait takes one, and no handler runs");
    set = set_of(SIGUSR1, 0);
    sigwait(&set, &signal);
    printf("sigwait: %s\n", name(signal));
    print_pending();

    puts("unblock delivers the other before it returns, once");
    set = set_of(SIGINT, 0);
    pthread_sigmask(SIG_UNBLOCK, &set, &old);
    print_set("blocked before", &old);
    print_pending();

    puts("unblocking what is not blocked is no error");
    printf("result: %d\n", pthread_sigmask(SIG_UNBLOCK, &set, NULL));

    puts("a chosen mask, and back");
    set = set_of(SIGQUIT, SIGTERM);
    pthread_sigmask(SIG_SETMASK, &set, &old);
    print_set("blocked before", &old);
    raise(SIGTERM);
    raise(SIGQUIT);
    print_pending();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    print_pending();

    puts("nobody blocks SIGKILL and SIGSTOP");
    set = set_of(SIGKILL, SIGSTOP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_sigmask(SIG_BLOCK, NULL, &old);
    print_set("blocked now", &old);

    puts("real-time signals queue, in order, with a value each");
    set = set_of(real_time, 0);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int value = 1; value <= 3; value++)
        sigqueue(getpid(), real_time, (union sigval){.sival_int = value * 100});
    print_pending();
    for (int value = 1; value <= 3; value++) {
        signal = sigwaitinfo(&set, &info);
        printf("sigwaitinfo: %s, value %d\n", name(signal), info.si_value.sival_int);
    }
    print_pending();

    puts("a wait that ends without a signal");
    struct timespec moment = {.tv_nsec = 1000000};
    if (sigtimedwait(&set, &info, &moment) == -1 && errno == EAGAIN)
        puts("nothing came");
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    puts("sigsuspend lets one in for as long as it waits");
    set = set_of(SIGTERM, 0);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise(SIGTERM);
    print_pending();
    sigsuspend(&before);
    pthread_sigmask(SIG_BLOCK, NULL, &old);
    print_set("blocked now", &old);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    puts("done");
    return 0;
}
