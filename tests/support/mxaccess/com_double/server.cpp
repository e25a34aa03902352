#include "server.h"

#include <olectl.h>

#include "alarms.h"

namespace {

constexpr long GOOD = 192, BAD_CONFIGURATION = 4, BAD_COMMUNICATION = 24, WAITING_FOR_INITIAL_DATA = 32;
constexpr UINT TICK_MS = 10;
// Posted when a job is due at once: the timer has steps of 10 ms or more.
constexpr UINT JOBS_ARE_DUE = WM_APP;
constexpr ULONGLONG LOAD_SETTLE_MS = 1000;
constexpr size_t MOST_PER_TICK = 2000;
const IID EVENTS = {0x848299B6, 0xDD61, 0x4A0D, {0xA3, 0x04, 0x39, 0x47, 0xA5, 0x64, 0xB8, 0x9C}};
const IID EVENTS_2 = {0xC70A6FC4, 0x09EF, 0x4F31, {0x88, 0x74, 0xA0, 0x49, 0xFE, 0xE8, 0x7A, 0x95}};
const GUID STATUS_RECORD = {0xA162D9E4, 0x9019, 0x42F3, {0xA0, 0x87, 0x79, 0x26, 0x40, 0x07, 0xE5, 0x42}};

double setting(const wchar_t *name, double otherwise) {
    wchar_t value[32];
    const std::wstring variable = std::wstring(L"LMXDOUBLE_") + name;
    if (!GetEnvironmentVariableW(variable.c_str(), value, 32)) return otherwise;
    return std::wcstod(value, nullptr);
}

VARIANT number(long value) {
    VARIANT made;
    VariantInit(&made);
    made.vt = VT_I4;
    made.lVal = value;
    return made;
}

// The lowest number from 1 that is no key.
template <typename Map> long free_handle(const Map &used) {
    long handle = 1;
    for (const auto &one : used) {
        if (one.first != handle) break;
        ++handle;
    }
    return handle;
}

std::wstring text_of(BSTR text) { return text ? std::wstring(text, SysStringLen(text)) : std::wstring(); }

// The native MxDataType of a VARTYPE. Source: docs/reference/mxaccess.md#data-types.
long data_type_of(VARTYPE vt) {
    switch (vt) {
    case VT_BOOL: return 1;
    case VT_I4: return 2;
    case VT_R4: return 3;
    case VT_R8: return 4;
    case VT_BSTR: return 5;
    case VT_DATE: return 6;
    default: return -1;
    }
}

// Returns a time as COM's programs for the United States write it, with milliseconds.
Variant time_text(double time) {
    SYSTEMTIME parts;
    // The call rounds to whole seconds, so the milliseconds are taken off first.
    const double day_ms = time * 86400000.0;
    const long long whole_ms = (long long)(day_ms + 0.5);
    VariantTimeToSystemTime(double(whole_ms / 1000 * 1000) / 86400000.0, &parts);
    wchar_t made[64];
    const int hour = parts.wHour % 12 ? parts.wHour % 12 : 12;
    wsprintfW(made, L"%d/%d/%d %d:%02d:%02d.%03d %s", parts.wMonth, parts.wDay, parts.wYear, hour, parts.wMinute,
              parts.wSecond, int(whole_ms % 1000), parts.wHour < 12 ? L"AM" : L"PM");
    return text(made);
}

}  // namespace

Knobs::Knobs()
    : version(long(setting(L"VERSION", 5))), resolve_ms(long(setting(L"RESOLVE_MS", 20))),
      complete_ms(long(setting(L"COMPLETE_MS", 10))), scan_ms(long(setting(L"SCAN_MS", 500))),
      recover_ms(long(setting(L"RECOVER_MS", 2000))), rate(setting(L"RATE", 1000)), load_items(long(setting(L"LOAD_ITEMS", 0))),
      pump_ms(long(setting(L"PUMP_MS", 0))), no_events_2(setting(L"NO_EVENTS_2", 0) != 0),
      hangs_at_end(setting(L"HANGING_RELEASE", 0) != 0) {}

// Connection points.

STDMETHODIMP Point::QueryInterface(REFIID iid, void **out) {
    *out = iid == IID_IUnknown || iid == IID_IConnectionPoint ? this : nullptr;
    if (!*out) return E_NOINTERFACE;
    AddRef();
    return S_OK;
}

STDMETHODIMP_(ULONG) Point::AddRef() { return owner_->AddRef(); }

STDMETHODIMP_(ULONG) Point::Release() { return owner_->Release(); }

STDMETHODIMP Point::GetConnectionPointContainer(IConnectionPointContainer **out) {
    *out = owner_;
    owner_->AddRef();
    return S_OK;
}

STDMETHODIMP Point::Advise(IUnknown *sink, DWORD *cookie) {
    IDispatch *receiver = nullptr;
    if (FAILED(sink->QueryInterface(iid_, reinterpret_cast<void **>(&receiver)))) return CONNECT_E_CANNOTCONNECT;
    sinks_[*cookie = ++next_] = receiver;
    return S_OK;
}

STDMETHODIMP Point::Unadvise(DWORD cookie) {
    const auto found = sinks_.find(cookie);
    if (found == sinks_.end()) return CONNECT_E_NOCONNECTION;
    found->second->Release();
    sinks_.erase(found);
    return S_OK;
}

void Point::fire(DISPID event, VARIANT *arguments, UINT count) {
    const auto receivers = sinks_;
    // A receiver can end its connection while it is called.
    for (const auto &one : receivers) one.second->AddRef();
    for (const auto &one : receivers) {
        DISPPARAMS parameters = {arguments, nullptr, count, 0};
        Variant result;
        EXCEPINFO exception = {};
        UINT wrong = 0;
        one.second->Invoke(event, IID_NULL, LOCALE_SYSTEM_DEFAULT, DISPATCH_METHOD, &parameters, result.get(), &exception, &wrong);
        one.second->Release();
    }
}

// The object.

Server::Server()
    : type_(type_info(IID_ILMXProxyServer5)), events_(this, EVENTS), events_2_(this, EVENTS_2),
      galaxy_([this](const std::wstring &name, const VARIANT &value) { switched(name, value); }) {
    InterlockedIncrement(&live_objects);
    WNDCLASSW description = {};
    description.lpfnWndProc = window_procedure;
    description.hInstance = module_handle;
    description.lpszClassName = L"LmxDouble";
    RegisterClassW(&description);
    window_ = CreateWindowExW(0, L"LmxDouble", L"", 0, 0, 0, 0, 0, HWND_MESSAGE, nullptr, module_handle, nullptr);
    SetWindowLongPtrW(window_, GWLP_USERDATA, reinterpret_cast<LONG_PTR>(this));
    SetTimer(window_, 1, TICK_MS, nullptr);
    next_scan_ = GetTickCount64() + knobs_.scan_ms;
}

Server::~Server() {
    if (knobs_.hangs_at_end) Sleep(INFINITE);
    DestroyWindow(window_);
    if (type_) type_->Release();
    InterlockedDecrement(&live_objects);
}

LRESULT CALLBACK Server::window_procedure(HWND window, UINT message, WPARAM first, LPARAM second) {
    const auto server = reinterpret_cast<Server *>(GetWindowLongPtrW(window, GWLP_USERDATA));
    if (server && (message == WM_TIMER || message == JOBS_ARE_DUE)) {
        server->AddRef();
        if (message == JOBS_ARE_DUE) {
            server->is_posted_ = false;
            server->do_jobs(GetTickCount64());
        } else {
            server->tick();
        }
        server->Release();
        return 0;
    }
    return DefWindowProcW(window, message, first, second);
}

STDMETHODIMP Server::QueryInterface(REFIID iid, void **out) {
    *out = nullptr;
    const IID versions[] = {IID_ILMXProxyServer, IID_ILMXProxyServer2, IID_ILMXProxyServer3, IID_ILMXProxyServer4, IID_ILMXProxyServer5};
    for (long version = 1; version <= 5; ++version)
        if (iid == versions[version - 1] && version <= knobs_.version) *out = static_cast<ILMXProxyServer5 *>(this);
    if (iid == IID_IUnknown || iid == IID_IDispatch) *out = static_cast<ILMXProxyServer5 *>(this);
    if (iid == IID_IConnectionPointContainer) *out = static_cast<IConnectionPointContainer *>(this);
    if (!*out) return E_NOINTERFACE;
    AddRef();
    return S_OK;
}

STDMETHODIMP_(ULONG) Server::Release() {
    const LONG left = InterlockedDecrement(&references_);
    if (!left) delete this;
    return ULONG(left);
}

STDMETHODIMP Server::FindConnectionPoint(REFIID iid, IConnectionPoint **out) {
    *out = iid == EVENTS ? &events_ : iid == EVENTS_2 && knobs_.version >= 5 && !knobs_.no_events_2 ? &events_2_ : nullptr;
    if (!*out) return CONNECT_E_NOCONNECTION;
    (*out)->AddRef();
    return S_OK;
}

Item *Server::item(long server, long handle) {
    const auto client = clients_.find(server);
    if (client == clients_.end()) return nullptr;
    const auto found = client->second.items.find(handle);
    return found == client->second.items.end() ? nullptr : &found->second;
}

void Server::pump() {
    const ULONGLONG until = GetTickCount64() + knobs_.pump_ms;
    while (GetTickCount64() < until) {
        MSG message;
        if (!PeekMessageW(&message, nullptr, 0, 0, PM_REMOVE)) {
            Sleep(1);
            continue;
        }
        TranslateMessage(&message);
        DispatchMessageW(&message);
    }
}

// The methods.

STDMETHODIMP Server::Register(BSTR, LONG *server) {
    *server = free_handle(clients_);
    clients_[*server];
    return S_OK;
}

STDMETHODIMP Server::Unregister(LONG server) { return clients_.erase(server) ? S_OK : E_INVALIDARG; }

HRESULT Server::add(LONG server, BSTR definition, BSTR context, bool is_buffered, LONG *handle) {
    const InCall in_call(this);
    const auto client = clients_.find(server);
    const std::wstring name = text_of(definition);
    if (client == clients_.end() || name.find_first_not_of(L" \t") == name.npos) return E_INVALIDARG;
    if (!name.compare(0, 7, L"Denied.")) return E_ACCESSDENIED;  // as without a licence
    if (!name.compare(0, 5, L"Hang.")) Sleep(INFINITE);
    *handle = free_handle(client->second.items);
    Item &made = client->second.items[*handle];
    made.server = server;
    made.handle = *handle;
    made.definition = name;
    made.context = text_of(context);
    made.is_buffered = is_buffered;
    return S_OK;
}

STDMETHODIMP Server::AddItem(LONG server, BSTR definition, LONG *item) { return add(server, definition, nullptr, false, item); }

STDMETHODIMP Server::AddItem2(LONG server, BSTR definition, BSTR context, LONG *item) { return add(server, definition, context, false, item); }

STDMETHODIMP Server::AddBufferedItem(LONG server, BSTR definition, BSTR context, LONG *item) { return add(server, definition, context, true, item); }

STDMETHODIMP Server::RemoveItem(LONG server, LONG handle) {
    const InCall in_call(this);
    if (!item(server, handle)) return E_INVALIDARG;
    clients_[server].items.erase(handle);
    return S_OK;
}

STDMETHODIMP Server::Advise(LONG server, LONG handle) {
    const InCall in_call(this);
    Item *found = item(server, handle);
    if (!found) return E_INVALIDARG;
    if (found->is_advised) return S_OK;
    found->is_advised = true;
    found->has_last = false;
    found->last_detail = SUCCESS;
    found->load_count = 0;
    Client &client = clients_[server];
    if (found->is_buffered && !client.buffer_due) client.buffer_due = GetTickCount64() + client.buffered_ms;
    const bool is_load = galaxy_.find(found->definition, found->context).attribute
        && galaxy_.find(found->definition, found->context).attribute->load_number;
    if (is_load || found->is_resolved || !knobs_.resolve_ms) {
        later_for(*found, 0, [this](Item &item) { resolve(item); });
    } else {
        later_for(*found, 0, [this](Item &item) { announce(item, RESOLVING_ATTRIBUTE); });
        later_for(*found, knobs_.resolve_ms, [this](Item &item) { resolve(item); });
    }
    return S_OK;
}

STDMETHODIMP Server::AdviseSupervisory(LONG server, LONG handle) { return Advise(server, handle); }

STDMETHODIMP Server::UnAdvise(LONG server, LONG handle) {
    const InCall in_call(this);
    Item *found = item(server, handle);
    if (!found) return E_INVALIDARG;
    ++found->generation;
    found->is_advised = found->is_suspended = false;
    found->samples.clear();
    return S_OK;
}

HRESULT Server::write(LONG server, LONG handle, const VARIANT &value, const VARIANT *time, bool is_secured, LONG current, LONG verifier) {
    const InCall in_call(this);
    Item *found = item(server, handle);
    // A write before the type is known is an invalid argument.
    if (!found || !found->is_advised || !found->is_resolved) return E_INVALIDARG;
    double at = now();
    if (time) {
        if (time->vt != VT_DATE) return E_INVALIDARG;
        at = time->date;
    }
    const Key key(server, handle);
    const unsigned generation = found->generation;
    const Variant kept(value);
    later(knobs_.complete_ms, [=, this] { complete(key, generation, kept, at, is_secured, current, verifier); });
    return S_OK;
}

STDMETHODIMP Server::Write(LONG server, LONG item, VARIANT value, LONG user) { return write(server, item, value, nullptr, false, user, 0); }

STDMETHODIMP Server::Write2(LONG server, LONG item, VARIANT value, VARIANT time, LONG user) { return write(server, item, value, &time, false, user, 0); }

STDMETHODIMP Server::WriteSecured(LONG server, LONG item, LONG current, LONG verifier, VARIANT value) {
    return write(server, item, value, nullptr, true, current, verifier);
}

STDMETHODIMP Server::WriteSecured2(LONG server, LONG item, LONG current, LONG verifier, VARIANT value, VARIANT time) {
    return write(server, item, value, &time, true, current, verifier);
}

STDMETHODIMP Server::AuthenticateUser(LONG server, BSTR, BSTR, LONG *user) {
    *user = 1;  // an open Galaxy accepts any credentials
    return clients_.count(server) ? S_OK : E_INVALIDARG;
}

STDMETHODIMP Server::ArchestrAUserToId(LONG server, BSTR guid, LONG *user) {
    IID parsed;
    *user = 0;
    return clients_.count(server) && SUCCEEDED(CLSIDFromString(guid, &parsed)) ? S_OK : E_INVALIDARG;
}

STDMETHODIMP Server::Suspend(LONG server, LONG handle, MxStatus *status) {
    Item *found = item(server, handle);
    if (!found || !found->is_advised) return E_INVALIDARG;
    const Status answer = found->is_suspended ? succeeded() : pending();
    *status = {answer.success, answer.category, answer.detected_by, answer.detail};
    if (found->is_suspended) return S_OK;
    found->is_suspended = true;
    later_for(*found, knobs_.complete_ms, [this](Item &item) { completion(3, item.server, item.handle, succeeded()); });
    return S_OK;
}

STDMETHODIMP Server::Activate(LONG server, LONG handle, MxStatus *status) {
    Item *found = item(server, handle);
    if (!found || !found->is_advised) return E_INVALIDARG;
    const Status answer = found->is_suspended ? pending() : succeeded();
    *status = {answer.success, answer.category, answer.detected_by, answer.detail};
    if (!found->is_suspended) return S_OK;
    found->is_suspended = false;
    later_for(*found, knobs_.complete_ms, [this](Item &item) {
        completion(3, item.server, item.handle, succeeded());
        report(item);
    });
    return S_OK;
}

STDMETHODIMP Server::SetBufferedUpdateInterval(LONG server, LONG milliseconds) {
    const auto client = clients_.find(server);
    if (client == clients_.end() || milliseconds < 1) return E_INVALIDARG;
    client->second.buffered_ms = milliseconds;
    if (client->second.buffer_due) client->second.buffer_due = GetTickCount64() + milliseconds;
    return S_OK;
}

// What happens later.

void Server::later(long milliseconds, std::function<void()> job) {
    jobs_.emplace(GetTickCount64() + milliseconds, std::move(job));
    if (milliseconds <= 0 && !is_posted_) is_posted_ = PostMessageW(window_, JOBS_ARE_DUE, 0, 0);
}

void Server::later_for(const Item &item, long milliseconds, std::function<void(Item &)> job) {
    const Key key(item.server, item.handle);
    const unsigned generation = item.generation;
    later(milliseconds, [=, this] {
        Item *found = this->item(key.first, key.second);
        if (found && found->is_advised && found->generation == generation) job(*found);
    });
}

void Server::do_jobs(ULONGLONG at) {
    for (size_t done = 0; done < MOST_PER_TICK && !jobs_.empty() && jobs_.begin()->first <= at; ++done) {
        const auto job = std::move(jobs_.begin()->second);
        jobs_.erase(jobs_.begin());
        job();
    }
}

void Server::tick() {
    const ULONGLONG at = GetTickCount64();
    do_jobs(at);
    if (at >= next_scan_) {
        next_scan_ = at + knobs_.scan_ms;
        scan();
    }
    show_alarms();
    make_load(at);
    send_buffers(at);
}

void Server::show_alarms() {
    const LONG revision = Alarms::all().revision();
    if (revision == shown_alarms_ || is_down_) return;
    shown_alarms_ = revision;
    const AlarmData alarm = Alarms::all().tank();
    for (const auto &shown : {std::pair(galaxy_.in_alarm, alarm.in_alarm), std::pair(galaxy_.is_acknowledged, alarm.is_acknowledged)}) {
        shown.first->value = truth(shown.second);
        shown.first->time = now();
        changed(shown.first);
    }
}

void Server::scan() {
    if (is_down_) return;
    Attribute &count = *galaxy_.scan_count;
    count.value = integer(count.value->lVal + 1);
    count.time = now();
    changed(&count);
}

void Server::make_load(ULONGLONG at) {
    // Not before the last item has joined for a while: then the order is that of the items, from the first event on.
    const bool is_complete = load_joins_ >= ULONGLONG(knobs_.load_items) && at - load_joined_ >= LOAD_SETTLE_MS;
    if (load_.empty() || is_down_ || knobs_.rate <= 0 || !is_complete) {
        load_started_ = 0;
        return;
    }
    if (!load_started_) {
        load_started_ = at;
        load_sent_ = 0;
    }
    const auto due = ULONGLONG((at - load_started_) / 1000.0 * knobs_.rate);
    const double time = now();
    for (size_t made = 0; load_sent_ < due && made < MOST_PER_TICK && !load_.empty(); ++made, ++load_sent_) {
        load_place_ %= load_.size();
        Item *found = item(load_[load_place_].first, load_[load_place_].second);
        if (!found || !found->is_advised || found->is_suspended) {
            load_.erase(load_.begin() + load_place_);
            continue;
        }
        ++load_place_;
        const double value = found->found.attribute->load_number * 4294967296.0 + double(found->load_count++ % 4294967296ULL);
        data_change(*found, *real(value), GOOD, time, succeeded());
    }
}

void Server::announce(Item &item, Detail detail) {
    if (item.is_buffered || item.is_suspended || is_down_) return;
    data_change(item, *Variant(), WAITING_FOR_INITIAL_DATA, now(), pending(detail));
}

void Server::resolve(Item &item) {
    Found found = galaxy_.find(item.definition, item.context);
    if (is_down_ && !(found.attribute && found.attribute->is_immune)) found = {nullptr, NO_INDEX, PLATFORM_COMMUNICATION_ERROR};
    if (!found.attribute) {
        fail(item, found.detail);
        return;
    }
    item.found = found;
    item.is_resolved = true;
    if (found.attribute->load_number) {
        if (knobs_.rate > 0) {
            load_.emplace_back(item.server, item.handle);
            load_joined_ = GetTickCount64();
            ++load_joins_;
            const double value = found.attribute->load_number * 4294967296.0 + double(item.load_count++);
            data_change(item, *real(value), GOOD, now(), succeeded());
        } else {
            report(item);
        }
        return;
    }
    report(item);
}

void Server::report(Item &item) {
    if (!item.is_advised || item.is_suspended || !item.is_resolved) return;
    const Attribute &attribute = *item.found.attribute;
    if (attribute.is_silent || (is_down_ && !attribute.is_immune)) return;
    Variant value;
    const Detail detail = value_at(attribute, item.found.index, value);
    if (detail != SUCCESS) {
        fail(item, detail);
        return;
    }
    item.last_detail = SUCCESS;
    if (item.has_last && same(*item.last, *value)) return;
    item.has_last = true;
    item.last = value;
    if (item.is_buffered)
        item.samples.emplace_back(value, attribute.time);
    else
        data_change(item, *value, GOOD, attribute.time, succeeded());
}

void Server::fail(Item &item, Detail detail) {
    if (item.last_detail == detail) return;
    item.last_detail = detail;
    item.has_last = false;
    const long quality = detail == PLATFORM_COMMUNICATION_ERROR ? BAD_COMMUNICATION : BAD_CONFIGURATION;
    if (item.is_buffered) {
        const VARIANT given = number(quality);
        buffered(item, 0, *Variant(), given, *date(now()), failed(detail));
    } else {
        data_change(item, *Variant(), quality, now(), failed(detail));
    }
}

Detail Server::refused(const Attribute &attribute, bool is_secured, LONG current, LONG verifier) const {
    if (is_down_ && !attribute.is_immune) return PLATFORM_COMMUNICATION_ERROR;
    if (attribute.is_constant) return NOT_WRITEABLE;
    if (attribute.security == VIEW_ONLY) return WRITE_ACCESS_DENIED;
    if (attribute.security == SECURED && !(is_secured && current)) return SECURED_WRITE;
    if (attribute.security == VERIFIED && !(is_secured && current && verifier)) return VERIFIED_WRITE;
    return SUCCESS;
}

void Server::complete(Key key, unsigned generation, Variant value, double time, bool is_secured, LONG current, LONG verifier) {
    Item *found = item(key.first, key.second);
    if (!found || !found->is_resolved) return;
    Attribute &attribute = *found->found.attribute;
    Variant accepted;
    Detail detail = refused(attribute, is_secured, current, verifier);
    if (detail == SUCCESS) detail = accept(attribute, found->found.index, *value, accepted);
    if (detail == SUCCESS && attribute.applied) detail = attribute.applied(*accepted);
    if (found->is_advised && found->generation == generation) {
        if (drop_completions_ > 0 && !attribute.is_immune)
            --drop_completions_;
        else if (detail != SUCCESS)
            completion(2, key.first, key.second, failed(detail));
        else
            completion(2, key.first, key.second, attribute.answers_pending ? pending() : succeeded());
    }
    if (detail != SUCCESS) return;
    attribute.value = accepted;
    attribute.time = time;
    changed(&attribute);
    if (attribute.written) attribute.written(*accepted);
}

void Server::changed(Attribute *attribute) {
    std::vector<Key> keys;
    for (const auto &client : clients_)
        for (const auto &one : client.second.items)
            if (one.second.is_resolved && one.second.found.attribute == attribute) keys.emplace_back(client.first, one.first);
    for (const auto &key : keys)
        if (Item *found = item(key.first, key.second)) report(*found);
}

void Server::send_buffers(ULONGLONG at) {
    for (auto &client : clients_) {
        if (!client.second.buffer_due || client.second.buffer_due > at) continue;
        client.second.buffer_due = at + client.second.buffered_ms;
        std::vector<long> handles;
        for (const auto &one : client.second.items) handles.push_back(one.first);
        for (const long handle : handles) {
            Item *found = item(client.first, handle);
            if (!found || found->samples.empty()) continue;
            const auto samples = std::move(found->samples);
            found->samples.clear();
            const ULONG count = ULONG(samples.size());
            const VARTYPE vt = found->found.attribute->vt;
            Variant values = zeros(vt == VT_VARIANT ? VARTYPE(VT_VARIANT) : vt, count), qualities = zeros(VT_I4, count), times = zeros(VT_DATE, count);
            for (LONG place = 0; place < LONG(count); ++place) {
                Variant value = samples[place].first;
                double time = samples[place].second;
                long quality = GOOD;
                void *data = vt == VT_VARIANT ? (void *)value.get() : vt == VT_BSTR ? (void *)value->bstrVal : (void *)&value.get()->llVal;
                SafeArrayPutElement(values.get()->parray, &place, data);
                SafeArrayPutElement(qualities.get()->parray, &place, &quality);
                SafeArrayPutElement(times.get()->parray, &place, &time);
            }
            buffered(*found, data_type_of(vt), *values, *qualities, *times, succeeded());
        }
    }
}

void Server::switched(const std::wstring &name, const VARIANT &value) {
    if (name == L"PlatformDown") platform(value.boolVal != VARIANT_FALSE);
    if (name == L"DropCompletions") drop_completions_ = value.lVal;
    if (name == L"CompletionDelay") knobs_.complete_ms = long(value.dblVal * 1000);
    if (name == L"Hang") Sleep(value.dblVal < 0 ? INFINITE : DWORD(value.dblVal * 1000));
    if (name == L"TextTimes") text_times_ = value.boolVal != VARIANT_FALSE;
    if (name == L"BadTimes") bad_times_ = value.boolVal != VARIANT_FALSE;
    if (name == L"StatusesByValue") by_value_ = value.boolVal != VARIANT_FALSE;
    if (name == L"NoStatuses") no_statuses_ = value.boolVal != VARIANT_FALSE;
}

void Server::platform(bool down) {
    auto for_all = [this](const std::function<void(Item &)> &job) {
        std::vector<Key> keys;
        for (const auto &client : clients_)
            for (const auto &one : client.second.items)
                if (one.second.is_advised && !one.second.is_suspended && !(one.second.is_resolved && one.second.found.attribute->is_immune))
                    keys.emplace_back(client.first, one.first);
        for (const auto &key : keys)
            if (Item *found = item(key.first, key.second)) job(*found);
    };
    ++outages_;
    if (down) {
        if (is_down_) return;
        is_down_ = true;
        for_all([this](Item &item) { fail(item, PLATFORM_COMMUNICATION_ERROR); });
        return;
    }
    const unsigned outage = outages_;
    later(knobs_.recover_ms, [=, this] {
        if (outage != outages_ || !is_down_) return;
        is_down_ = false;
        for_all([this](Item &item) {
            item.last_detail = SUCCESS;
            item.has_last = false;
            announce(item, ENGINE_INITIALIZING);
            later_for(item, knobs_.resolve_ms, [this](Item &later) { resolve(later); });
        });
    });
}

// Events.

SAFEARRAY *Server::statuses(const Status &status) {
    ITypeInfo *type = type_info(STATUS_RECORD);
    IRecordInfo *record = nullptr;
    if (!type || FAILED(GetRecordInfoFromTypeInfo(type, &record))) return nullptr;
    type->Release();
    SAFEARRAYBOUND bound = {no_statuses_ ? 0u : 1u, 0};
    SAFEARRAY *array = SafeArrayCreateEx(VT_RECORD, 1, &bound, record);
    record->Release();
    if (no_statuses_) return array;
    MXSTATUS_PROXY *element = nullptr;
    SafeArrayAccessData(array, reinterpret_cast<void **>(&element));
    *element = {status.success, status.category, status.detected_by, status.detail};
    SafeArrayUnaccessData(array);
    return array;
}

VARIANT Server::statuses_argument(SAFEARRAY **array) {
    VARIANT made;
    VariantInit(&made);
    made.vt = VT_ARRAY | VT_RECORD;
    if (by_value_) {
        made.parray = *array;
    } else {
        made.vt |= VT_BYREF;
        made.pparray = array;
    }
    return made;
}

void Server::data_change(const Item &item, const VARIANT &value, long quality, double time, const Status &status) {
    SAFEARRAY *array = statuses(status);
    const Variant when = bad_times_ ? date(-700000.0) : text_times_ ? time_text(time) : date(time);
    VARIANT arguments[] = {statuses_argument(&array), *when, number(quality), value, number(item.handle), number(item.server)};
    events_.fire(1, arguments, 6);
    SafeArrayDestroy(array);
}

void Server::completion(DISPID event, long server, long handle, const Status &status) {
    SAFEARRAY *array = statuses(status);
    VARIANT arguments[] = {statuses_argument(&array), number(handle), number(server)};
    events_.fire(event, arguments, 3);
    SafeArrayDestroy(array);
}

void Server::buffered(const Item &item, long data_type, const VARIANT &values, const VARIANT &qualities, const VARIANT &times, const Status &status) {
    SAFEARRAY *array = statuses(status);
    VARIANT arguments[] = {statuses_argument(&array), times, qualities, values, number(data_type), number(item.handle), number(item.server)};
    events_2_.fire(1, arguments, 7);
    SafeArrayDestroy(array);
}
