// The library: its class factory, and its registration for the programs of its bitness.
#define INITGUID
#include "consumer.h"
#include "server.h"

HINSTANCE module_handle;
LONG live_objects;

ITypeInfo *type_info(REFGUID guid, int library) {
    static ITypeLib *libraries[ALARM_LIBRARY + 1];
    if (!libraries[library]) {
        wchar_t path[MAX_PATH];
        GetModuleFileNameW(module_handle, path, MAX_PATH);
        LoadTypeLibEx((std::wstring(path) + L"\\" + std::to_wstring(library)).c_str(), REGKIND_NONE, &libraries[library]);
    }
    ITypeInfo *found = nullptr;
    if (libraries[library]) libraries[library]->GetTypeInfoOfGuid(guid, &found);
    return found;
}

namespace {

class Factory : public IClassFactory {
public:
    STDMETHODIMP QueryInterface(REFIID iid, void **out) override {
        *out = iid == IID_IUnknown || iid == IID_IClassFactory ? this : nullptr;
        return *out ? S_OK : E_NOINTERFACE;
    }
    STDMETHODIMP_(ULONG) AddRef() override { return 2; }
    STDMETHODIMP_(ULONG) Release() override { return 1; }
    STDMETHODIMP CreateInstance(IUnknown *outer, REFIID iid, void **out) override {
        *out = nullptr;
        if (outer) return CLASS_E_NOAGGREGATION;
        // What MXAccess' library does without its licence is not known; this is how a test sees the sentence.
        if (GetEnvironmentVariableW(L"LMXDOUBLE_NO_LICENCE", nullptr, 0)) return E_ACCESSDENIED;
        if (GetEnvironmentVariableW(L"LMXDOUBLE_HANGING_START", nullptr, 0)) Sleep(INFINITE);
        const auto made = new Server;
        const HRESULT result = made->QueryInterface(iid, out);
        made->Release();
        return result;
    }
    STDMETHODIMP LockServer(BOOL) override { return S_OK; }
};

class ConsumerFactory : public Factory {
public:
    STDMETHODIMP CreateInstance(IUnknown *outer, REFIID iid, void **out) override {
        *out = nullptr;
        if (outer) return CLASS_E_NOAGGREGATION;
        const auto made = new Consumer;
        const HRESULT result = made->QueryInterface(iid, out);
        made->Release();
        return result;
    }
};

Factory factory;
ConsumerFactory consumer_factory;
const std::wstring CLASS = L"{C30B52F5-2CB5-4760-AF0A-3A344A7EB5DC}";
const std::wstring CONSUMER_CLASS = L"{7AB52E5F-6D78-6777-8000-000000000004}";

void put(const std::wstring &key, const wchar_t *name, const std::wstring &value) {
    HKEY opened;
    if (RegCreateKeyExW(HKEY_LOCAL_MACHINE, (L"Software\\Classes\\" + key).c_str(), 0, nullptr, 0, KEY_WRITE, nullptr, &opened, nullptr)) return;
    RegSetValueExW(opened, name, 0, REG_SZ, reinterpret_cast<const BYTE *>(value.c_str()), DWORD(2 * value.size() + 2));
    RegCloseKey(opened);
}

}  // namespace

extern "C" {

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, void *) {
    if (reason == DLL_PROCESS_ATTACH) module_handle = instance;
    return TRUE;
}

HRESULT WINAPI DllGetClassObject(REFCLSID wanted, REFIID iid, void **out) {
    if (wanted == CLSID_wwAlarmConsumer) return consumer_factory.QueryInterface(iid, out);
    return wanted == CLSID_LMXProxyServer ? factory.QueryInterface(iid, out) : CLASS_E_CLASSNOTAVAILABLE;
}

HRESULT WINAPI DllCanUnloadNow() { return live_objects ? S_FALSE : S_OK; }

HRESULT WINAPI DllRegisterServer() {
    wchar_t path[MAX_PATH];
    GetModuleFileNameW(module_handle, path, MAX_PATH);
    for (const auto &one : {std::pair(CLASS, L"A double of LMXProxyServer, for tests"), std::pair(CONSUMER_CLASS, L"A double of wwAlarmConsumer, for tests")}) {
        put(L"CLSID\\" + one.first, nullptr, one.second);
        put(L"CLSID\\" + one.first + L"\\InprocServer32", nullptr, path);
        put(L"CLSID\\" + one.first + L"\\InprocServer32", L"ThreadingModel", L"Apartment");
    }
    // The real program id is not known.
    put(L"MxgwDouble.wwAlarmConsumer\\CLSID", nullptr, CONSUMER_CLASS);
    for (const auto name : {L"LMXProxy.LMXProxyServer", L"LMXProxy.LMXProxyServer.1"}) put(std::wstring(name) + L"\\CLSID", nullptr, CLASS);
    return S_OK;
}

HRESULT WINAPI DllUnregisterServer() {
    for (const auto &one : {CLASS, CONSUMER_CLASS}) RegDeleteTreeW(HKEY_LOCAL_MACHINE, (L"Software\\Classes\\CLSID\\" + one).c_str());
    return S_OK;
}

}
