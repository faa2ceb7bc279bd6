/* SoftHSM with few sessions, as tokens of hardware have: it says that there are SAID, and opens OPENED at once. */

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

typedef unsigned long CK_ULONG;
typedef CK_ULONG (*function)();

#define CK_UNAVAILABLE_INFORMATION (~0UL)
#define CKR_SESSION_COUNT 0xB1UL

/* Version 2.40 of the list, in the order of pkcs11f.h. */
enum { INITIALIZE, FINALIZE, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION, CLOSE_ALL_SESSIONS, ALL = 68 };
struct list {
    unsigned char version[2];
    function of[ALL];
};

/* Four texts of 96 octets together stand before it. */
struct token_info {
    char texts[96];
    CK_ULONG flags, sessions_max;
    char others[256];
};

static struct list *real, ours;
static atomic_long open_now;

static CK_ULONG get_token_info(CK_ULONG slot, struct token_info *info) {
    CK_ULONG said = real->of[GET_TOKEN_INFO](slot, info);
    info->sessions_max = SAID;
    return said;
}

static CK_ULONG open_session(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_ULONG *session) {
    if (atomic_fetch_add(&open_now, 1) >= OPENED) {
        atomic_fetch_sub(&open_now, 1);
        return CKR_SESSION_COUNT;
    }
    CK_ULONG said = real->of[OPEN_SESSION](slot, flags, application, notify, session);
    if (said != 0)
        atomic_fetch_sub(&open_now, 1);
    return said;
}

static CK_ULONG close_session(CK_ULONG session) {
    CK_ULONG said = real->of[CLOSE_SESSION](session);
    if (said == 0)
        atomic_fetch_sub(&open_now, 1);
    return said;
}

static CK_ULONG finalize(void *reserved) {
    open_now = 0;
    return real->of[FINALIZE](reserved);
}

CK_ULONG C_GetFunctionList(struct list **list) {
    void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    CK_ULONG (*get)(struct list **) = module ? dlsym(module, "C_GetFunctionList") : 0;
    if (!get || get(&real) != 0)
        return 5; /* CKR_GENERAL_ERROR */
    memcpy(&ours, real, sizeof ours);
    ours.of[GET_TOKEN_INFO] = (function)get_token_info;
    ours.of[OPEN_SESSION] = (function)open_session;
    ours.of[CLOSE_SESSION] = (function)close_session;
    ours.of[FINALIZE] = (function)finalize;
    *list = &ours;
    return 0;
}
