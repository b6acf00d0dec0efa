// node nucleus_analytics.js ENDPOINT APP: what an application does with nucleus-analytics 4.
const [endpoint, app] = process.argv.slice(2)
const loaded = require("nucleus-analytics")
const Nucleus = loaded.default || loaded

Nucleus.init(app, { endpoint, reportInterval: 0.5, disableErrorReports: true })
Nucleus.setUserId("richard_hendrix")
Nucleus.setProps({ plan: "pro", age: 34 })
Nucleus.track("PLAYED_TRACK", { trackName: "x", duration: 120 })
Nucleus.page("Cart", { action: "addItem", count: 5 })
Nucleus.trackError("weirdError", new Error("it broke"))
setTimeout(() => process.exit(0), 6000)
