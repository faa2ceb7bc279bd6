/* SoftHSM with troubles of its own: of its decryptions those fail where TROUBLES has an x, though the ciphertext is good and all
   else works meanwhile. */

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

typedef unsigned long CK_ULONG;
typedef CK_ULONG (*function)();

#define CKR_DEVICE_ERROR 0x30UL

/* Version 2.40 of the list, in the order of pkcs11f.h. */
enum { DECRYPT = 34, ALL = 68 };
struct list {
    unsigned char version[2];
    function of[ALL];
};

static struct list *real, ours;
static atomic_size_t decryptions;

static CK_ULONG decrypt(CK_ULONG session, void *given, CK_ULONG given_length, void *out, CK_ULONG *length) {
    CK_ULONG said = real->of[DECRYPT](session, given, given_length, out, length);
    /* Without room for the result it is a question of how long that is, which does not end the operation. */
    if (!out)
        return said;
    size_t number = atomic_fetch_add(&decryptions, 1);
    return number < strlen(TROUBLES) && TROUBLES[number] == 'x' ? CKR_DEVICE_ERROR : said;
}

CK_ULONG C_GetFunctionList(struct list **list) {
    void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    CK_ULONG (*get)(struct list **) = module ? dlsym(module, "C_GetFunctionList") : 0;
    if (!get || get(&real) != 0)
        return 5; /* CKR_GENERAL_ERROR */
    memcpy(&ours, real, sizeof ours);
    ours.of[DECRYPT] = (function)decrypt;
    *list = &ours;
    return 0;
}
