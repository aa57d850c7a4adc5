import { setup } from '../../../../lib/engines/install/setup-engine.js'
import { orThrow } from '../../../../lib/error.js'
import { Workbench } from '../fakes.js'

// A set-up in a process of its own, for the tests that kill it or run two: the bench's folder comes as an argument.
const bench = new Workbench(process.argv[2])
const { state } = await orThrow(setup(bench.options({ pip: process.argv[3] === 'slow' ? 'slow' : 'ok' })))
console.log(state)
