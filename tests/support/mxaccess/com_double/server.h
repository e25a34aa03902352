// The COM object. All of it lives in the thread that made it. Events leave through a hidden window of that thread, so they
// come only while it pumps messages, as with MXAccess itself.
#pragma once

#include <map>
#include <set>

#include <ocidl.h>

#include "galaxy.h"
#include "lmx_double.h"

extern HINSTANCE module_handle;
extern LONG live_objects;
// The libraries of types in this file, by the number of their resource.
constexpr int LMX_LIBRARY = 1, ALARM_LIBRARY = 2;
ITypeInfo *type_info(REFGUID guid, int library = LMX_LIBRARY);

struct Knobs {
    // Environment variables LMXDOUBLE_..., read when an object is made.
    long version;      // VERSION: the newest interface, 1 to 5
    long resolve_ms;   // RESOLVE_MS: from Advise to the first value
    long complete_ms;  // COMPLETE_MS: from a write, Suspend or Activate to its completion
    long scan_ms;      // SCAN_MS: between two changes of AppEngine_001.ScanCount
    long recover_ms;   // RECOVER_MS: until a platform that comes back has values
    double rate;       // RATE: events per second of all items of the load together
    long load_items;   // LOAD_ITEMS: the load begins when so many items have joined it, however long that takes
    long pump_ms;      // PUMP_MS: for so long every call of an item dispatches messages, and so events, before it returns
    bool no_events_2;  // NO_EVENTS_2: the object has no connection point for buffered items
    bool hangs_at_end; // HANGING_RELEASE: the last Release never returns
    Knobs();
};

struct Item {
    long server = 0, handle = 0;
    std::wstring definition, context;
    Found found;
    bool is_resolved = false, is_advised = false, is_suspended = false, is_buffered = false;
    bool has_last = false;
    Variant last;
    Detail last_detail = SUCCESS;
    unsigned generation = 0;  // of its advise; what was scheduled before is void
    ULONGLONG load_count = 0;
    std::vector<std::pair<Variant, double>> samples;
};

struct Client {
    std::map<long, Item> items;
    long buffered_ms = 1000;
    ULONGLONG buffer_due = 0;
};

class Server;

class Point : public IConnectionPoint {
public:
    Point(Server *owner, REFIID iid) : owner_(owner), iid_(iid) {}
    ~Point() { for (const auto &one : sinks_) one.second->Release(); }
    void fire(DISPID event, VARIANT *arguments, UINT count);
    STDMETHODIMP QueryInterface(REFIID iid, void **out) override;
    STDMETHODIMP_(ULONG) AddRef() override;
    STDMETHODIMP_(ULONG) Release() override;
    STDMETHODIMP GetConnectionInterface(IID *iid) override { *iid = iid_; return S_OK; }
    STDMETHODIMP GetConnectionPointContainer(IConnectionPointContainer **out) override;
    STDMETHODIMP Advise(IUnknown *sink, DWORD *cookie) override;
    STDMETHODIMP Unadvise(DWORD cookie) override;
    STDMETHODIMP EnumConnections(IEnumConnections **) override { return E_NOTIMPL; }

private:
    Server *owner_;
    IID iid_;
    std::map<DWORD, IDispatch *> sinks_;
    DWORD next_ = 0;
};

class Server : public ILMXProxyServer5, public IConnectionPointContainer {
public:
    Server();
    virtual ~Server();

    STDMETHODIMP QueryInterface(REFIID iid, void **out) override;
    STDMETHODIMP_(ULONG) AddRef() override { return ULONG(InterlockedIncrement(&references_)); }
    STDMETHODIMP_(ULONG) Release() override;

    STDMETHODIMP GetTypeInfoCount(UINT *count) override { *count = 1; return S_OK; }
    STDMETHODIMP GetTypeInfo(UINT, LCID, ITypeInfo **out) override { *out = type_; type_->AddRef(); return S_OK; }
    STDMETHODIMP GetIDsOfNames(REFIID, LPOLESTR *names, UINT count, LCID, DISPID *ids) override { return type_->GetIDsOfNames(names, count, ids); }
    STDMETHODIMP Invoke(DISPID id, REFIID, LCID, WORD flags, DISPPARAMS *parameters, VARIANT *result, EXCEPINFO *exception, UINT *wrong) override {
        return type_->Invoke(static_cast<ILMXProxyServer5 *>(this), id, flags, parameters, result, exception, wrong);
    }

    STDMETHODIMP EnumConnectionPoints(IEnumConnectionPoints **) override { return E_NOTIMPL; }
    STDMETHODIMP FindConnectionPoint(REFIID iid, IConnectionPoint **out) override;

    STDMETHODIMP Register(BSTR client, LONG *server) override;
    STDMETHODIMP Unregister(LONG server) override;
    STDMETHODIMP AddItem(LONG server, BSTR definition, LONG *item) override;
    STDMETHODIMP RemoveItem(LONG server, LONG item) override;
    STDMETHODIMP Advise(LONG server, LONG item) override;
    STDMETHODIMP UnAdvise(LONG server, LONG item) override;
    STDMETHODIMP Write(LONG server, LONG item, VARIANT value, LONG user) override;
    STDMETHODIMP WriteSecured(LONG server, LONG item, LONG current, LONG verifier, VARIANT value) override;
    STDMETHODIMP AuthenticateUser(LONG server, BSTR name, BSTR password, LONG *user) override;
    STDMETHODIMP ArchestrAUserToId(LONG server, BSTR guid, LONG *user) override;
    STDMETHODIMP AddItem2(LONG server, BSTR definition, BSTR context, LONG *item) override;
    STDMETHODIMP Write2(LONG server, LONG item, VARIANT value, VARIANT time, LONG user) override;
    STDMETHODIMP WriteSecured2(LONG server, LONG item, LONG current, LONG verifier, VARIANT value, VARIANT time) override;
    STDMETHODIMP Suspend(LONG server, LONG item, MxStatus *status) override;
    STDMETHODIMP Activate(LONG server, LONG item, MxStatus *status) override;
    STDMETHODIMP AdviseSupervisory(LONG server, LONG item) override;
    STDMETHODIMP AddBufferedItem(LONG server, BSTR definition, BSTR context, LONG *item) override;
    STDMETHODIMP SetBufferedUpdateInterval(LONG server, LONG milliseconds) override;

private:
    using Key = std::pair<long, long>;
    // Lets the messages in when a method returns, as a call to another apartment or process does.
    class InCall {
    public:
        explicit InCall(Server *server) : server_(server) {}
        InCall(const InCall &) = delete;
        ~InCall() { server_->pump(); }

    private:
        Server *server_;
    };
    void pump();
    static LRESULT CALLBACK window_procedure(HWND window, UINT message, WPARAM first, LPARAM second);
    Item *item(long server, long handle);
    HRESULT add(LONG server, BSTR definition, BSTR context, bool is_buffered, LONG *handle);
    HRESULT write(LONG server, LONG handle, const VARIANT &value, const VARIANT *time, bool is_secured, LONG current, LONG verifier);
    void later(long milliseconds, std::function<void()> job);
    // Runs `job` with the item, unless it was un-advised or removed meanwhile.
    void later_for(const Item &item, long milliseconds, std::function<void(Item &)> job);
    void do_jobs(ULONGLONG at);
    void tick();
    void scan();
    void show_alarms();
    void make_load(ULONGLONG at);
    void send_buffers(ULONGLONG at);
    void announce(Item &item, Detail detail);
    void resolve(Item &item);
    void report(Item &item);
    void fail(Item &item, Detail detail);
    void complete(Key key, unsigned generation, Variant value, double time, bool is_secured, LONG current, LONG verifier);
    Detail refused(const Attribute &attribute, bool is_secured, LONG current, LONG verifier) const;
    void changed(Attribute *attribute);
    void switched(const std::wstring &name, const VARIANT &value);
    void platform(bool down);
    void data_change(const Item &item, const VARIANT &value, long quality, double time, const Status &status);
    void completion(DISPID event, long server, long handle, const Status &status);
    void buffered(const Item &item, long data_type, const VARIANT &values, const VARIANT &qualities, const VARIANT &times, const Status &status);
    SAFEARRAY *statuses(const Status &status);
    VARIANT statuses_argument(SAFEARRAY **array);

    LONG references_ = 1;
    Knobs knobs_;
    ITypeInfo *type_;
    Point events_, events_2_;
    HWND window_;
    bool is_posted_ = false;
    Galaxy galaxy_;
    std::map<long, Client> clients_;
    std::multimap<ULONGLONG, std::function<void()>> jobs_;
    ULONGLONG next_scan_ = 0;
    LONG shown_alarms_ = -1;
    ULONGLONG load_joined_ = 0, load_joins_ = 0, load_started_ = 0, load_sent_ = 0;
    std::vector<Key> load_;
    size_t load_place_ = 0;
    bool is_down_ = false, text_times_ = false, bad_times_ = false, by_value_ = false, no_statuses_ = false;
    unsigned outages_ = 0;
    long drop_completions_ = 0;
};
