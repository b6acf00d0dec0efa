// node nucleus_nodejs.js ENDPOINT APP PACKAGE: what an application does with nucleus-nodejs 3.
const [endpoint, app, name] = process.argv.slice(2)
const Nucleus = require(name)

Nucleus.init(app, { endpoint, reportInterval: 0.5, disableErrorReports: true })
Nucleus.setUserId("ada@example.com")
Nucleus.appStarted()
Nucleus.track("PLAYED_TRACK", { trackName: "Ünï ☃", duration: 120, nested: { a: [1, 2.5] } })
Nucleus.track("NO_DATA")
Nucleus.trackError("weirdError", new Error("it broke"))
setTimeout(() => Nucleus.track("LATER", { n: 1 }), 1000)
setTimeout(() => process.exit(0), 3000)
