export { allReduceTree, countBuckets, gatherSlices, ownSlices } from './buckets.js'
export { type JoinOptions, joinWorkers } from './join-workers.js'
export { freePorts, networkIssues, parseRank, parseWorkers } from './worker-addresses.js'
export { parameterHash, type Traffic, type WorkerGroup, workerName } from './worker-group.js'
