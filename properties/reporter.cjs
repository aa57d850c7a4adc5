'use strict'
const { reporters, Runner } = require('mocha')

/** Mocha's spec reporter, closed by the one line that CI reads: `N passed, N failed` (and `, N skipped` where tests were). */
module.exports = class extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      const { passes, failures, pending } = runner.stats
      console.log(`${passes} passed, ${failures} failed${pending > 0 ? `, ${pending} skipped` : ''}`)
    })
  }
}
