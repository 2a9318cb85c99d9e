"""From a trained model to what an app team receives: conversion, full-integer quantisation, checks, the bundle."""
